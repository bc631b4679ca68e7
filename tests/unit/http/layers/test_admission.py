"""Who gets in, over an ASGI application made by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from service.core.backlog import MIN_LIMIT, STANDING_S, Backlog
from service.core.deadline import NEVER, Deadline
from service.http.in_flight import InFlight
from service.http.layers.admission import Admission, AdmissionLimits
from service.http.layers.observation import Observation
from service.http.layers.refusals import Refusals
from service.http.readiness import Readiness
from service.http.request_state import state_of
from service.http.route_table import RouteTable
from service.telemetry.metrics import Metrics

LIMITS = AdmissionLimits({"image": 100, "batch": 300}, timeout_s=10)


class Inner:
    """The guarded application: reads the whole body, and can be held while it does."""

    def __init__(self) -> None:
        self.hold: asyncio.Event | None = None
        self.deadlines: list[Deadline] = []
        self.bodies: list[int] = []
        self.error: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.deadlines.append(state_of(scope).deadline)
        size, more = 0, scope["type"] == "http"
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        if self.hold:
            await self.hold.wait()
        if self.error:
            raise self.error
        self.bodies.append(size)
        await PlainTextResponse("inner")(scope, receive, send)


class Gate:
    """An admission with its surroundings, and a client of it."""

    def __init__(self) -> None:
        self.inner = Inner()
        self.readiness = Readiness(warmed_up=True)
        self.now_s = 0.0
        self.backlog = Backlog(workers=1, images_per_worker=1, now=lambda: self.now_s)
        self.metrics = Metrics()
        in_flight = InFlight(2, 300, self.backlog, self.metrics)
        admission = Admission(self.inner, LIMITS, self.readiness, in_flight)
        self.app = Observation(Refusals(admission, self.metrics), self.metrics, RouteTable())

    async def post(
        self,
        path: str = "/v1/emotions",
        chunks: Iterable[bytes] = (b"image",),
        *,
        method: str = "POST",
        **headers: str,
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [
                (b"x-request-id", b"id-1"),
                *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
            ],
        }
        incoming: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
        ]
        incoming.append({"type": "http.request", "body": b"", "more_body": False})
        sent: list[Message] = []

        async def receive() -> Message:
            return incoming.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent)
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        problem = json.loads(body) if "problem" in answered["content-type"] else {}
        return sent[0]["status"], answered, problem

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"expressnet_{name}", labels) or 0.0


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_request_gets_in_with_the_default_deadline(gate: Gate) -> None:
    status, _, _ = await gate.post()
    assert status == 200
    (deadline,) = gate.inner.deadlines
    assert deadline.timeout_s == 10
    assert 9 < deadline.remaining_s() <= 10


@pytest.mark.parametrize(("timeout_ms", "timeout_s"), [("1", 0.001), ("2500", 2.5), ("10001", 10)])
async def test_the_caller_can_only_shorten_the_deadline(
    gate: Gate, timeout_ms: str, timeout_s: float
) -> None:
    await gate.post(x_timeout_ms=timeout_ms)
    (deadline,) = gate.inner.deadlines
    assert deadline.timeout_s == timeout_s


@pytest.mark.parametrize("timeout_ms", ["", "0", "-1", "1.5", "1e3", "soon", "1" * 10, "²", " 5"])
async def test_a_timeout_that_is_no_number_is_refused_by_name(gate: Gate, timeout_ms: str) -> None:
    status, _, problem = await gate.post(x_timeout_ms=timeout_ms)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert "X-Timeout-Ms" in problem["detail"]
    assert gate.inner.bodies == []


async def test_draining_lets_nobody_in(gate: Gate) -> None:
    gate.readiness.drain()
    status, headers, problem = await gate.post()
    assert (status, problem["code"], problem["request_id"]) == (503, "draining", "id-1")
    assert int(headers["retry-after"]) > 0
    assert gate.metric("rejected_total", reason="draining") == 1


async def test_one_request_too_many_is_overloaded_at_once(gate: Gate) -> None:
    gate.inner.hold = asyncio.Event()
    admitted = [asyncio.create_task(gate.post()) for _ in range(2)]
    await settle()
    assert gate.metric("requests_in_flight") == 2
    status, headers, problem = await asyncio.wait_for(gate.post(), 5)
    assert (status, problem["code"]) == (429, "overloaded")
    assert int(headers["retry-after"]) > 0
    assert gate.metric("rejected_total", reason="overloaded") == 1
    gate.inner.hold.set()
    assert [(await task)[0] for task in admitted] == [200, 200]
    assert gate.metric("requests_in_flight") == 0
    assert (await gate.post())[0] == 200


async def test_a_queue_that_stands_takes_no_more(gate: Gate) -> None:
    with ExitStack() as images:
        for _ in range(MIN_LIMIT - 1):
            images.enter_context(gate.backlog.image())
        assert (await gate.post())[0] == 200, "a burst is let in"
        gate.now_s += STANDING_S + 0.1
        with gate.backlog.image():
            status, headers, problem = await gate.post()
        assert (status, problem["code"]) == (429, "overloaded")
        assert int(headers["retry-after"]) > 0
        assert gate.inner.bodies == [5], "its body was not read"
        assert gate.metric("rejected_total", reason="overloaded") == 1
    assert (await gate.post())[0] == 200


async def test_places_are_given_back_by_whatever_ends_a_request(gate: Gate) -> None:
    gate.inner.error = KeyError("inner")
    for _ in range(5):
        status, _, problem = await gate.post()
        assert (status, problem["code"]) == (500, "internal")
    gate.inner.hold = asyncio.Event()
    for _ in range(5):
        task = asyncio.create_task(gate.post())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert gate.metric("requests_in_flight") == 0


@pytest.mark.parametrize(("path", "limit"), [("/v1/emotions", 100), ("/v1/emotions/batch", 300)])
async def test_a_body_that_says_it_is_too_large_is_not_read(gate: Gate, path: str, limit: int) -> None:
    assert (await gate.post(path, [b"x" * limit], content_length=str(limit)))[0] == 200
    status, _, problem = await gate.post(path, [b"x"], content_length=str(limit + 1))
    assert (status, problem["code"]) == (413, "body_too_large")
    assert str(limit) in problem["detail"]
    assert gate.inner.bodies == [limit]
    assert gate.metric("rejected_total", reason="body_too_large") == 1
    assert gate.metric("requests_in_flight") == 0


@pytest.mark.parametrize("headers", [{}, {"content_length": "5"}])
async def test_what_really_arrives_is_counted(gate: Gate, headers: dict[str, str]) -> None:
    chunks = [b"x" * 50, b"x" * 50]
    assert (await gate.post(chunks=chunks, **headers))[0] == 200
    status, _, problem = await gate.post(chunks=[*chunks, b"x"], **headers)
    assert (status, problem["code"]) == (413, "body_too_large")
    assert "100 bytes" in problem["detail"]
    assert gate.inner.bodies == [100]
    assert gate.metric("requests_in_flight") == 0


@pytest.mark.parametrize(("method", "path"), [("GET", "/livez"), ("GET", "/metrics"), ("HEAD", "/docs/")])
async def test_other_routes_are_not_guarded(gate: Gate, method: str, path: str) -> None:
    gate.readiness.drain()
    status, _, _ = await gate.post(path, [b"x" * 1000], method=method)
    assert status == 200
    assert gate.inner.deadlines == [NEVER]
    assert gate.metric("requests_in_flight") == 0


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/emotions", "method_not_allowed"),
        ("POST", "/other", "not_found"),
        # To a router's regular expressions a line break at the end is none.
        ("GET", "/metrics\n", "not_found"),
        ("GET", "/docs//", "not_found"),
    ],
)
async def test_what_the_table_lacks_is_not_reached(gate: Gate, method: str, path: str, code: str) -> None:
    _, headers, problem = await gate.post(path, method=method)
    assert problem["code"] == code
    assert headers.get("allow") == ("POST" if code == "method_not_allowed" else None)
    assert gate.inner.deadlines == []


async def test_what_is_not_http_passes(gate: Gate) -> None:
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    in_flight = InFlight(2, 300, gate.backlog, gate.metrics)
    app = Admission(inner, LIMITS, Readiness(draining=True), in_flight)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        pass

    await app({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan"]


async def test_bodies_that_trickle_in_take_no_place(gate: Gate) -> None:
    """Five requests whose bodies never end, and two places: a sixth gets in."""
    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/emotions", "headers": []}
    for_ever = asyncio.Event()

    async def trickle() -> None:
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await for_ever.wait()
            sent = True
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: Message) -> None:
            raise AssertionError("it is not complete")

        await gate.app(dict(scope), receive, send)

    slow = [asyncio.create_task(trickle()) for _ in range(5)]
    await settle()
    assert gate.metric("requests_in_flight") == 0
    assert (await gate.post())[0] == 200
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert gate.metric("requests_in_flight") == 0


async def test_bodies_in_memory_are_bounded_together(gate: Gate) -> None:
    """300 bytes: that of the largest batch, which is more than two images."""
    gate.inner.hold = asyncio.Event()
    first = asyncio.create_task(gate.post("/v1/emotions/batch", [b"x" * 250]))
    await settle()
    status, _, problem = await gate.post("/v1/emotions", [b"x" * 51])
    assert (status, problem["code"]) == (429, "overloaded")
    assert "bytes" in problem["detail"]
    second = asyncio.create_task(gate.post("/v1/emotions", [b"x" * 50]))
    await settle()
    gate.inner.hold.set()
    assert [(await task)[0] for task in (first, second)] == [200, 200]
    assert (await gate.post("/v1/emotions/batch", [b"x" * 300]))[0] == 200


async def test_a_body_that_arrives_when_all_places_are_taken_is_overloaded(gate: Gate) -> None:
    """It came in while there was a place."""
    arriving = asyncio.Event()
    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/emotions", "headers": []}

    async def receive() -> Message:
        await arriving.wait()
        return {"type": "http.request", "body": b"x", "more_body": False}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    late = asyncio.create_task(gate.app(scope, receive, send))
    await settle()
    gate.inner.hold = asyncio.Event()
    admitted = [asyncio.create_task(gate.post()) for _ in range(2)]
    await settle()
    arriving.set()
    await late
    assert sent[0]["status"] == 429
    gate.inner.hold.set()
    assert [(await task)[0] for task in admitted] == [200, 200]
