"""A bare server. Its latency shows the time of the client itself, which no gateway can save.

`python -m tests.bench.bare 11.5` reads a whole request, keeps its core busy for 11.5 ms as a gateway would,
and answers. It prints only its port.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvloop

from service.core.timings import STAGES
from tests.bench.load import content_length

_BODY = b"." * 450  # about as long as the answer of one face


class _BareProtocol(asyncio.Protocol):
    def __init__(self, busy_s: float) -> None:
        self._busy_s = busy_s
        self._received = bytearray()
        self._expected: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._expected is None:
            head, end, _ = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            self._expected = len(head + end) + content_length(bytes(head + end))
        if len(self._received) >= self._expected:
            self._received.clear()
            self._expected = None
            self._answer()

    def _answer(self) -> None:
        started = now = time.perf_counter()
        while now - started < self._busy_s:
            now = time.perf_counter()
        stages = dict.fromkeys(STAGES, 0.0) | {STAGES[0]: (now - started) * 1e3}
        timing = ", ".join(f"{name};dur={spent_ms:.3f}" for name, spent_ms in stages.items())
        head = f"HTTP/1.1 200 OK\r\nServer-Timing: {timing}\r\nContent-Length: {len(_BODY)}\r\n\r\n"
        self._transport.write(head.encode() + _BODY)


async def _serve(busy_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _BareProtocol(busy_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def bare_server(busy_ms: float) -> Iterator[str]:
    """The address of a bare server in a process of its own. It is busy for `busy_ms` with each request."""
    command = [sys.executable, "-m", "tests.bench.bare", str(busy_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(float(sys.argv[1]) / 1e3))
