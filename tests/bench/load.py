"""Load: callers that ask again once they are answered, or requests that arrive whether or not others are.

Everything goes over raw keep-alive connections of one event loop: whoever asks shares the machine with
whoever answers, so the client must cost little. A request is bytes made once; an answer is hardly looked at.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import uvloop

T = TypeVar("T")
R = TypeVar("R")

ANSWER_LIMIT_S = 60.0
KEPT_S = 3.0  # servers close connections that were idle for a while, just when one is used again
_BOUNDARY = "photo"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_TIMING = re.compile(rb"\r\nserver-timing: *([^\r]*)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """All that goes over the wire for one request."""

    host: str
    port: int
    data: bytes


def post(url: str, body: bytes, media_type: str = "image/jpeg") -> Request:
    address = urlsplit(url)
    assert address.hostname, url
    assert address.port, url
    target = address.path + (f"?{address.query}" if address.query else "")
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return Request(address.hostname, address.port, head.encode() + body)


def upload(url: str, body: bytes, field: str = "file") -> Request:
    """The same as an HTML form sends it."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    form = head.encode() + body + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return post(url, form, f"multipart/form-data; boundary={_BOUNDARY}")


@dataclass(frozen=True)
class Answer:
    """One answer, or why there was none: `error` is a status other than 200 or the kind of failure."""

    latency_s: float
    error: str = ""
    head: bytes = b""
    body: bytes = b""
    at_s: float = 0.0  # of the clock that `time.perf_counter` reads, when it was complete

    @property
    def stages_ms(self) -> dict[str, float]:
        """The `Server-Timing` header."""
        found = _TIMING.search(self.head)
        entries = found[1].decode().split(", ") if found else []
        return {name: float(rest) for name, _, rest in (entry.partition(";dur=") for entry in entries)}


@dataclass
class Outcome:
    """What came back of one load, and what the client cost."""

    seconds: float = 0.0  # in which the answers counted here came
    client_cpu_s: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    failures: list[Answer] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        (self.failures if answer.error else self.answers).append(answer)

    @property
    def errors(self) -> Counter[str]:
        """How many failures there were of each kind."""
        return Counter(answer.error for answer in self.failures)

    @property
    def per_s(self) -> float:
        """Answers per second; errors are none."""
        return len(self.answers) / self.seconds

    def latency_ms(self, share: float) -> float:
        """The latency that this share of the answers did not exceed; not a number if there was no answer."""
        return latency_ms(self.answers, share)


def latency_ms(answers: Iterable[Answer], share: float) -> float:
    """The latency that this share of them did not exceed; not a number if there are none."""
    latencies = sorted(answer.latency_s for answer in answers)
    return latencies[math.ceil(share * len(latencies)) - 1] * 1e3 if latencies else math.nan


def content_length(head: bytes) -> int:
    """Of the body after a head that ends with an empty line. Raises `ValueError` where it is not told."""
    length = _LENGTH.search(head)
    if length is None:
        raise ValueError(f"a body of unknown length: {head[:80]!r}")
    return int(length[1])


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        raise ValueError(f"not an answer: {head[:80]!r}")
    return head, await reader.readexactly(content_length(head))


def answered(head: bytes, body: bytes, started: float) -> Answer:
    """The answer to what was asked at `started`, complete now."""
    now = time.perf_counter()
    status = head.split(b" ", 2)[1].decode()
    return Answer(now - started, "" if status == "200" else status, head, body, now)


class Connection:
    """One caller's keep-alive connection, opened when it is first needed."""

    def __init__(self) -> None:
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used_at = 0.0

    async def ask(self, request: Request) -> Answer:
        """Never raises because of what the server does or fails to do."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                head, body = await self._exchange(request)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            now = time.perf_counter()
            return Answer(now - started, type(error).__name__, at_s=now)
        answer = answered(head, body, started)
        self._used_at = answer.at_s
        if answer.error not in ("", "429"):
            self.close()  # servers may hang up after an error without saying so; that is not a second error
        return answer

    async def _exchange(self, request: Request) -> tuple[bytes, bytes]:
        idle_s = time.perf_counter() - self._used_at
        if self._streams is None or self._streams[0].at_eof() or idle_s > KEPT_S:
            self.close()
            self._streams = await asyncio.open_connection(request.host, request.port)
        reader, writer = self._streams
        writer.write(request.data)
        return await read_answer(reader)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_loop(
    asks: Sequence[Callable[[R], Awaitable[Answer]]], requests: Iterable[R], seconds: float = math.inf
) -> Outcome:
    """Each caller asks again once it is answered, until `seconds` are over or no request is left.

    Of a load that time ends, the answers count that come within `seconds` of the first one: neither while the
    callers are not yet all at work, nor while the last of them are still to be answered.
    """
    outcome = Outcome()
    waiting = iter(requests)
    began_at: float | None = None
    started_at, cpu_s = time.perf_counter(), time.process_time()

    async def caller(ask: Callable[[R], Awaitable[Answer]]) -> None:
        nonlocal began_at
        for request in waiting:
            answer = await ask(request)
            now = time.perf_counter()
            if seconds == math.inf:
                outcome.add(answer)
            elif began_at is None:
                began_at = now
            elif now > began_at + seconds:
                break
            else:
                outcome.add(answer)

    await asyncio.gather(*(caller(ask) for ask in asks))
    wall_s = time.perf_counter() - started_at
    outcome.seconds = wall_s if seconds == math.inf else seconds
    outcome.client_cpu_s = (time.process_time() - cpu_s) * outcome.seconds / wall_s
    return outcome


async def open_loop(
    ask: Callable[[R], Awaitable[Answer]], requests: Iterable[R], per_s: float, seconds: float
) -> Outcome:
    """Requests arrive at a constant rate; how long they take counts from when each was due.

    A caller that waits for the last answer before it asks again sends little while a server stalls, and so
    hides how long all others would have waited ("coordinated omission"). Here the stall falls on every
    request that was due in it, also on those that this process itself was late to send.
    """
    outcome = Outcome(seconds=seconds)
    started, cpu_s = time.perf_counter(), time.process_time()

    async def arrival(request: R, due: float) -> None:
        answer = await ask(request)
        now = time.perf_counter()
        outcome.add(replace(answer, latency_s=now - due, at_s=now))

    async with asyncio.TaskGroup() as arrivals:
        for number, request in zip(range(round(per_s * seconds)), requests, strict=False):
            due = started + number / per_s
            await asyncio.sleep(due - time.perf_counter())
            arrivals.create_task(arrival(request, due))
    outcome.client_cpu_s = time.process_time() - cpu_s
    return outcome


class Pool:
    """As many connections as there are requests on their way."""

    def __init__(self) -> None:
        self._free: list[Connection] = []

    async def ask(self, request: Request) -> Answer:
        connection = self._free.pop() if self._free else Connection()
        answer = await connection.ask(request)
        self._free.append(connection)
        return answer

    def close(self) -> None:
        for connection in self._free:
            connection.close()


def callers(count: int, requests: Iterable[Request], seconds: float = math.inf) -> Outcome:
    """`closed_loop` over as many connections as callers, on an event loop of its own."""

    async def load() -> Outcome:
        connections = [Connection() for _ in range(count)]
        try:
            return await closed_loop([connection.ask for connection in connections], requests, seconds)
        finally:
            for connection in connections:
                connection.close()

    return run(load())


def arrivals(requests: Iterable[Request], per_s: float, seconds: float) -> Outcome:
    """`open_loop` over a pool of connections, on an event loop of its own."""

    async def load() -> Outcome:
        pool = Pool()
        try:
            return await open_loop(pool.ask, requests, per_s, seconds)
        finally:
            pool.close()

    return run(load())


def run(load: Coroutine[Any, Any, T]) -> T:
    """On uvloop, whose sockets take half of the CPU time that asyncio's take."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)
