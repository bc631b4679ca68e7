"""The load generator against a scripted server: what it counts, not how fast it is."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.bench.bare import bare_server
from tests.bench.load import (
    Answer,
    Connection,
    Outcome,
    Pool,
    Request,
    callers,
    closed_loop,
    open_loop,
    post,
    upload,
)

Reply = Callable[[int], Awaitable[bytes]]


def ok(body: bytes = b"{}", *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


class ScriptedServer:
    """A server that answers the nth request with `reply(n)`; an empty reply closes the connection instead."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.bodies: list[bytes] = []
        self.connections = 0
        self.request = Request("", 0, b"")

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                answer = await self._reply(len(self.bodies) - 1)
                if not answer:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted_server(reply: Reply) -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer(reply)
    server = await asyncio.start_server(scripted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    scripted.request = post(f"http://127.0.0.1:{port}/photos?small=1", b"bytes of a photo")
    async with server:
        yield scripted


async def always_ok(_: int) -> bytes:
    return ok()


async def test_each_caller_keeps_its_own_connection() -> None:
    async with scripted_server(always_ok) as server:
        connections = [Connection() for _ in range(3)]
        outcome = await closed_loop(
            [connection.send for connection in connections], itertools.repeat(server.request, 30)
        )
        for connection in connections:
            connection.close()
    assert len(outcome.answers) == len(server.bodies) == 30
    assert server.connections == 3
    assert not outcome.errors
    assert set(server.bodies) == {b"bytes of a photo"}


async def test_a_load_with_a_time_limit_counts_neither_the_first_answer_nor_late_answers() -> None:
    async def slow_after_the_first(number: int) -> bytes:
        if number > 0:
            await asyncio.sleep(0.05)
        return ok()

    async with scripted_server(slow_after_the_first) as server:
        connection = Connection()
        outcome = await closed_loop([connection.send], itertools.repeat(server.request), seconds=0.01)
        connection.close()
    assert len(server.bodies) == 2
    assert outcome.answers == []
    assert outcome.seconds == 0.01


async def test_errors_are_counted_by_kind_and_not_as_answers() -> None:
    async def each_kind(number: int) -> bytes:
        return (ok(), ok(status="429 Too Many Requests"), b"", b"nonsense\r\n\r\n")[number % 4]

    async with scripted_server(each_kind) as server:
        connection = Connection()
        outcome = await closed_loop([connection.send], itertools.repeat(server.request, 8))
        connection.close()
    assert len(outcome.answers) == 2
    assert outcome.errors == {"429": 2, "IncompleteReadError": 2, "ValueError": 2}
    assert server.connections > 1, "a new connection replaces a closed one"


async def test_a_refused_connection_is_an_error() -> None:
    async with scripted_server(always_ok) as server:
        pass
    outcome = await closed_loop([Connection().send], [server.request])
    assert sum(outcome.errors.values()) == 1


async def test_a_stall_adds_to_the_latency_of_every_request_due_in_it() -> None:
    stalled_s, per_s = 0.5, 100
    release = asyncio.Event()

    async def stalled_at_first(number: int) -> bytes:
        if number == 0:
            await asyncio.sleep(stalled_s)
            release.set()
        await release.wait()
        return ok()

    async with scripted_server(stalled_at_first) as server:
        pool = Pool()
        outcome = await open_loop(pool.send, itertools.repeat(server.request), per_s, seconds=0.3)
        pool.close()
    assert len(outcome.answers) == 30, "requests arrive although no request is answered"
    # Request n was due n / rate after the start, and no request was answered before the end of the stall.
    for number, answer in enumerate(sorted(outcome.answers, key=lambda answer: -answer.latency_s)):
        assert answer.latency_s >= stalled_s - number / per_s - 0.005


async def test_latency_begins_when_a_request_is_due_even_if_it_is_sent_late() -> None:
    block_s = 0.2

    async def send(number: int) -> Answer:
        if number == 0:
            # This blocks the event loop, like a machine that is too busy to send in time.
            time.sleep(block_s)  # noqa: ASYNC251
        return Answer(0.0)

    outcome = await open_loop(send, itertools.count(), per_s=100, seconds=0.1)
    assert len(outcome.answers) == 10
    assert min(answer.latency_s for answer in outcome.answers) > 0
    assert sum(answer.latency_s > block_s / 4 for answer in outcome.answers) >= 9


async def test_stages_come_from_the_server_timing_header() -> None:
    async def timed(_: int) -> bytes:
        return ok(headers="Server-Timing: decode;dur=3.5, detect;dur=70.0\r\n")

    async with scripted_server(timed) as server:
        connection = Connection()
        answer = await connection.send(server.request)
        connection.close()
    assert answer.stages_ms == {"decode": 3.5, "detect": 70.0}
    assert Answer(0.0).stages_ms == {}


@pytest.mark.parametrize(("share", "expected_ms"), [(0.5, 50), (0.99, 99), (1, 100)])
def test_percentiles_are_measured_latencies(share: float, expected_ms: float) -> None:
    outcome = Outcome(2.0, answers=[Answer(n / 1e3) for n in range(100, 0, -1)])
    assert outcome.latency_ms(share) == pytest.approx(expected_ms)
    assert outcome.per_s == 50


def test_a_form_holds_the_photo() -> None:
    data = upload("http://127.0.0.1:1/emotions", b"photo").data
    head, _, body = data.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert b'name="file"' in body
    assert b"\r\n\r\nphoto\r\n--" in body


def test_a_bare_server_answers_whole_requests_and_reports_its_busy_time() -> None:
    with bare_server(5.0) as url:
        outcome = callers(1, [post(url, bytes(300_000)), post(url, b"")])
    assert not outcome.errors
    for answer in outcome.answers:
        assert 5.0 <= answer.stages_ms["queue"] <= answer.latency_s * 1e3
