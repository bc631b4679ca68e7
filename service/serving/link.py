"""Messages between a serving process and its supervisor: lines of JSON over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from typing import Any

from service.access.counts import LocalCounts
from service.access.rates import Caller, Rate, Spent
from service.telemetry.logs import log

ANSWER_S = 0.1
RETRY_S = 1.0
LINE_BYTES = 2**28
"""Max length of a line: the results of a recording are one."""


def line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


class Link:
    """The serving process's end. It is a `Counts`: the supervisor counts rates over all processes.

    A request waits for the supervisor for `ANSWER_S` at most. Without an answer this process counts alone
    for `RETRY_S`.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._local = LocalCounts()
        self._local_until = 0.0
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count()

    def refuse(self, sentence: str) -> None:
        """Report why this process does not start. Called before `open`."""
        self._end.sendall(line(refused=sentence))

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=self._end, limit=LINE_BYTES)

    def tell(self, **message: Any) -> None:
        if not self._writer.is_closing():  # the supervisor may be gone
            self._writer.write(line(**message))

    def close(self) -> None:
        self._writer.close()

    async def run(self) -> None:
        """Read the supervisor's answers until it is gone."""
        with contextlib.suppress(ConnectionError):
            async for received in self._reader:
                message = json.loads(received)
                future = self._pending.get(message["number"])
                if future is not None and not future.done():
                    future.set_result(message)

    async def ask(self, timeout_s: float, **message: Any) -> dict[str, Any]:
        """The supervisor's answer. Raises `TimeoutError`."""
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        self.tell(number=number, **message)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            del self._pending[number]

    async def spend(self, rate: Rate, caller: Caller, images: int) -> Spent:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._local_until:
            try:
                answer = await self.ask(ANSWER_S, spend=[*rate, caller.kind, caller.name, images])
            except TimeoutError:
                if not self._local_until:
                    log.warning("rates are counted by this process alone")
                self._local_until = loop.time() + RETRY_S
            else:
                if self._local_until:
                    log.info("rates are counted over all processes")
                self._local_until = 0.0
                return Spent(*answer["spent"])
        return await self._local.spend(rate, caller, images)
