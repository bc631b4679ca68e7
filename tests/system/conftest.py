"""The gateway as its own process, started and stopped as an operator does."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import Gateway, eventually
from tests.processes import stop


class Process(Gateway):
    """`expressnet serve` on a free port; `log` holds the lines that it has written so far."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: list[str]) -> None:
        super().__init__(url)
        self.process = process
        self.log = log

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code; SIGKILL follows when that takes too long."""
        return stop(self.process, sig=sig)


def command(environment: dict[str, str], python: str | Path = sys.executable) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-m", "service", "serve"],
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
    # The thread reads until the process ends: a process blocks while its pipe is full.
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


class Caller:
    """A raw connection, which can stop in the middle of its request or of its answer."""

    def __init__(self, url: str, body: bytes, timeout_ms: int = 60_000, query: str = "") -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname or "", address.port or 0), timeout=60)
        self._request = (
            f"POST /v1/emotions{query} HTTP/1.1\r\nHost: t\r\nContent-Type: image/jpeg\r\n"
            f"X-Timeout-Ms: {timeout_ms}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def send(self, share: float = 1.0) -> Caller:
        """Send this share of the part of the request that is not sent yet."""
        count = round(share * len(self._request))
        self._socket.sendall(self._request[:count])
        self._request = self._request[count:]
        return self

    def read(self, count: int = -1) -> bytes:
        """Read `count` bytes, or everything until the connection ends or is reset."""
        data = b""
        try:
            while len(data) != count and (part := self._socket.recv(65536 if count < 0 else count)):
                data += part
        except ConnectionResetError:
            pass
        return data

    def close(self) -> None:
        self._socket.close()


def status(answer: bytes) -> int:
    """The status of a raw answer, or 0 if the connection ended without an answer."""
    return int(answer.split(b" ", 2)[1]) if answer else 0
