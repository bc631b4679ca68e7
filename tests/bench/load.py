"""Load from callers that wait for each answer, or from requests that arrive at a constant rate.

The client shares the machine with the server, so the client must take little CPU time. It has raw keep-alive
connections on one event loop. The bytes of a request are made once, and only the head of an answer is parsed.
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
MAX_IDLE_S = 3.0  # then a new connection, because the server may close the old one at any moment
_BOUNDARY = "photo"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_TIMING = re.compile(rb"\r\nserver-timing: *([^\r]*)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """The address of a server, and all bytes of one request."""

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
    """A request with a file, as an HTML form sends it."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    form = head.encode() + body + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return post(url, form, f"multipart/form-data; boundary={_BOUNDARY}")


@dataclass(frozen=True)
class Answer:
    """One answer or failure. error: a status other than 200, or the name of an exception."""

    latency_s: float
    error: str = ""
    head: bytes = b""
    body: bytes = b""
    at_s: float = 0.0  # `time.perf_counter()` when the answer was complete

    @property
    def stages_ms(self) -> dict[str, float]:
        """Milliseconds by stage, from the `Server-Timing` header."""
        found = _TIMING.search(self.head)
        entries = found[1].decode().split(", ") if found else []
        return {name: float(rest) for name, _, rest in (entry.partition(";dur=") for entry in entries)}


@dataclass
class Outcome:
    """The answers and failures of one load, and the client's CPU time."""

    seconds: float = 0.0  # in which these answers and failures came
    client_cpu_s: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    failures: list[Answer] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        (self.failures if answer.error else self.answers).append(answer)

    @property
    def errors(self) -> Counter[str]:
        """The number of failures by kind."""
        return Counter(answer.error for answer in self.failures)

    @property
    def per_s(self) -> float:
        """Answers per second, without failures."""
        return len(self.answers) / self.seconds

    def latency_ms(self, share: float) -> float:
        """The latency that this share of the answers did not exceed; NaN if there are no answers."""
        return latency_ms(self.answers, share)


def errors_of(loads: Iterable[Outcome]) -> str:
    """The failures of all loads, by kind."""
    kinds = sum((load.errors for load in loads), Counter[str]())
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common()) or "no errors"


def latency_ms(answers: Iterable[Answer], share: float) -> float:
    """The latency that this share of the answers did not exceed; NaN if there are no answers."""
    latencies = sorted(answer.latency_s for answer in answers)
    return latencies[math.ceil(share * len(latencies)) - 1] * 1e3 if latencies else math.nan


def content_length(head: bytes) -> int:
    """The length of the body after this head. Raises `ValueError` if the head does not have the length.

    head: with the empty line at its end.
    """
    length = _LENGTH.search(head)
    if length is None:
        raise ValueError(f"a body of unknown length: {head[:80]!r}")
    return int(length[1])


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The head and the body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        raise ValueError(f"not an answer: {head[:80]!r}")
    return head, await reader.readexactly(content_length(head))


def answer_from(head: bytes, body: bytes, started: float) -> Answer:
    """The answer to a request that was sent at `started`. The answer is complete now."""
    now = time.perf_counter()
    status = head.split(b" ", 2)[1].decode()
    return Answer(now - started, "" if status == "200" else status, head, body, now)


class Connection:
    """One caller's keep-alive connection, opened when it is first needed."""

    def __init__(self) -> None:
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used_at = 0.0

    async def send(self, request: Request) -> Answer:
        """The answer. A failure of the server is an answer with an error, not an exception."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                head, body = await self._exchange(request)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            now = time.perf_counter()
            return Answer(now - started, type(error).__name__, at_s=now)
        answer = answer_from(head, body, started)
        self._used_at = answer.at_s
        if answer.error not in ("", "429"):
            self.close()  # the server may close it after an error, which must not count as a second error
        return answer

    async def _exchange(self, request: Request) -> tuple[bytes, bytes]:
        idle_s = time.perf_counter() - self._used_at
        if self._streams is None or self._streams[0].at_eof() or idle_s > MAX_IDLE_S:
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
    senders: Sequence[Callable[[R], Awaitable[Answer]]], requests: Iterable[R], seconds: float = math.inf
) -> Outcome:
    """Each caller sends its next request after each answer, until `seconds` are over or no request remains.

    A load with a time limit counts only the answers within `seconds` after the first answer. The first answer
    and later answers do not count, because not all callers have a request in flight then.
    """
    outcome = Outcome()
    remaining = iter(requests)
    began_at: float | None = None
    started_at, cpu_s = time.perf_counter(), time.process_time()

    async def caller(send: Callable[[R], Awaitable[Answer]]) -> None:
        nonlocal began_at
        for request in remaining:
            answer = await send(request)
            now = time.perf_counter()
            if seconds == math.inf:
                outcome.add(answer)
            elif began_at is None:
                began_at = now
            elif now > began_at + seconds:
                break
            else:
                outcome.add(answer)

    await asyncio.gather(*(caller(send) for send in senders))
    wall_s = time.perf_counter() - started_at
    outcome.seconds = wall_s if seconds == math.inf else seconds
    outcome.client_cpu_s = (time.process_time() - cpu_s) * outcome.seconds / wall_s
    return outcome


async def open_loop(
    send: Callable[[R], Awaitable[Answer]], requests: Iterable[R], per_s: float, seconds: float
) -> Outcome:
    """Requests arrive at a constant rate. The latency of a request counts from the time at which it was due.

    A caller that waits for each answer sends few requests while a server stalls. This hides how long other
    requests would have waited ("coordinated omission"). Here a stall adds to the latency of every request
    that was due in it. A request that this process sends late also counts from the time at which it was due.
    """
    outcome = Outcome(seconds=seconds)
    started, cpu_s = time.perf_counter(), time.process_time()

    async def arrival(request: R, due: float) -> None:
        answer = await send(request)
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
    """One connection for each request in flight."""

    def __init__(self) -> None:
        self._free: list[Connection] = []

    async def send(self, request: Request) -> Answer:
        connection = self._free.pop() if self._free else Connection()
        answer = await connection.send(request)
        self._free.append(connection)
        return answer

    def close(self) -> None:
        for connection in self._free:
            connection.close()


def callers(count: int, requests: Iterable[Request], seconds: float = math.inf) -> Outcome:
    """`closed_loop` with one connection for each caller, on an event loop of its own."""

    async def load() -> Outcome:
        connections = [Connection() for _ in range(count)]
        try:
            return await closed_loop([connection.send for connection in connections], requests, seconds)
        finally:
            for connection in connections:
                connection.close()

    return run(load())


def arrivals(requests: Iterable[Request], per_s: float, seconds: float) -> Outcome:
    """`open_loop` with a pool of connections, on an event loop of its own."""

    async def load() -> Outcome:
        pool = Pool()
        try:
            return await open_loop(pool.send, requests, per_s, seconds)
        finally:
            pool.close()

    return run(load())


def run(load: Coroutine[Any, Any, T]) -> T:
    """Run the load on uvloop. Its sockets take half the CPU time of asyncio's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)
