"""The gateway as its own process, started and stopped as an operator does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Gateway, eventually


class Process(Gateway):
    """`expressnet serve` on a free port; `log` holds the lines that it wrote."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: list[str]) -> None:
        super().__init__(url)
        self.process = process
        self.log = log

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(sig)
        return self.process.wait(60)


def command(environment: dict[str, str], python: str | Path = sys.executable) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-m", "service"],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@contextmanager
def running(python: str | Path = sys.executable, **settings: object) -> Iterator[Process]:
    """A ready gateway process with these `EXPRESSNET_*` settings; killed at the end if it still runs."""
    environment = {f"EXPRESSNET_{name.upper()}": str(value) for name, value in settings.items()}
    process = command({"EXPRESSNET_PORT": "0"} | environment, python)
    lines: list[str] = []
    # Read to the end: a process whose pipe is full stands still.
    reader = threading.Thread(target=_collect, args=(process, lines), daemon=True)
    reader.start()
    try:
        eventually(lambda: process.poll() is not None or _address(lines), timeout_s=90)
        address = _address(lines)
        assert address, f"the gateway did not start: {''.join(lines)}"
        served = Process(process, address, lines)
        eventually(lambda: served.client.get("/readyz").status_code == 200)
        yield served
        served.client.close()
    finally:
        process.kill()
        process.wait()
        reader.join()
        if process.stderr:
            process.stderr.close()


def _collect(process: subprocess.Popen[str], lines: list[str]) -> None:
    for line in process.stderr or ():
        lines.append(line)


def _address(lines: list[str]) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", "".join(lines))
    return found.group() if found else ""
