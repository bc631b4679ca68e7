"""Ending a process that a test has started: within a limit, whatever the process does."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

STOP_LIMIT_S = 60


def stop(
    process: subprocess.Popen[Any], limit_s: float = STOP_LIMIT_S, sig: signal.Signals = signal.SIGTERM
) -> int:
    """The exit code. The signal lets the process stop what it has started; after `limit_s` it is killed."""
    process.send_signal(sig)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        what = f"process {process.pid} ({str(process.args)[:100]})"
        print(f"{what} did not end within {limit_s:g} s of {sig.name} and is killed", file=sys.stderr)
        process.kill()
        return process.wait()
