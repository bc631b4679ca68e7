"""Ends a process that a test has started, always within a time limit."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

STOP_LIMIT_S = 60


def stop(
    process: subprocess.Popen[Any], limit_s: float = STOP_LIMIT_S, sig: signal.Signals = signal.SIGTERM
) -> int:
    """Send a signal, and return the exit code. A process that still runs after `limit_s` is killed.

    The signal lets the process stop its own children first.
    """
    process.send_signal(sig)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        name = f"process {process.pid} ({str(process.args)[:100]})"
        print(f"{name} did not end within {limit_s:g} s of {sig.name} and is killed", file=sys.stderr)
        process.kill()
        return process.wait()
