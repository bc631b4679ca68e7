"""The gateway as its own process, started and stopped as an operator does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import Gateway, eventually


class Process(Gateway):
    """`expressnet serve` on a free port; `log` is all that it wrote."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        super().__init__(url)
        self.process = process

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(sig)
        return self.process.wait(60)


def command(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service"],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@contextmanager
def running(**settings: object) -> Iterator[Process]:
    """A ready gateway process with these `EXPRESSNET_*` settings; killed at the end if it still runs."""
    environment = {f"EXPRESSNET_{name.upper()}": str(value) for name, value in settings.items()}
    process = command({"EXPRESSNET_PORT": "0"} | environment)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
            if address:
                break
        else:
            raise AssertionError(f"the gateway did not start: exit code {process.wait()}")
        served = Process(process, address.group())
        eventually(lambda: served.client.get("/readyz").status_code == 200)
        yield served
        served.client.close()
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
