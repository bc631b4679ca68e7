"""Which requests are admitted, with a minimal ASGI application behind the layer."""

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
    """The guarded application: reads the whole body, then waits until `hold` is set, if there is one."""

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


class Guarded:
    """An admission layer with the parts that it needs, and a client that sends requests through it."""

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
        response_headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        problem = json.loads(body) if "problem" in response_headers["content-type"] else {}
        return sent[0]["status"], response_headers, problem

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"expressnet_{name}", labels) or 0.0


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_request_is_admitted_with_the_default_deadline(guarded: Guarded) -> None:
    status, _, _ = await guarded.post()
    assert status == 200
    (deadline,) = guarded.inner.deadlines
    assert deadline.timeout_s == 10
    assert 9 < deadline.remaining_s() <= 10


@pytest.mark.parametrize(("timeout_ms", "timeout_s"), [("1", 0.001), ("2500", 2.5), ("10001", 10)])
async def test_the_caller_can_only_shorten_the_deadline(
    guarded: Guarded, timeout_ms: str, timeout_s: float
) -> None:
    await guarded.post(x_timeout_ms=timeout_ms)
    (deadline,) = guarded.inner.deadlines
    assert deadline.timeout_s == timeout_s


@pytest.mark.parametrize("timeout_ms", ["", "0", "-1", "1.5", "1e3", "soon", "1" * 10, "²", " 5"])
async def test_an_invalid_timeout_is_refused_by_name(guarded: Guarded, timeout_ms: str) -> None:
    status, _, problem = await guarded.post(x_timeout_ms=timeout_ms)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert "X-Timeout-Ms" in problem["detail"]
    assert guarded.inner.bodies == []


async def test_a_draining_service_admits_no_request(guarded: Guarded) -> None:
    guarded.readiness.drain()
    status, headers, problem = await guarded.post()
    assert (status, problem["code"], problem["request_id"]) == (503, "draining", "id-1")
    assert int(headers["retry-after"]) > 0
    assert guarded.metric("rejected_total", reason="draining") == 1


async def test_a_request_above_the_limit_is_overloaded_at_once(guarded: Guarded) -> None:
    guarded.inner.hold = asyncio.Event()
    admitted = [asyncio.create_task(guarded.post()) for _ in range(2)]
    await settle()
    assert guarded.metric("requests_in_flight") == 2
    status, headers, problem = await asyncio.wait_for(guarded.post(), 5)
    assert (status, problem["code"]) == (429, "overloaded")
    assert int(headers["retry-after"]) > 0
    assert guarded.metric("rejected_total", reason="overloaded") == 1
    guarded.inner.hold.set()
    assert [(await task)[0] for task in admitted] == [200, 200]
    assert guarded.metric("requests_in_flight") == 0
    assert (await guarded.post())[0] == 200


async def test_a_standing_queue_admits_no_more_requests(guarded: Guarded) -> None:
    with ExitStack() as images:
        for _ in range(MIN_LIMIT - 1):
            images.enter_context(guarded.backlog.image())
        assert (await guarded.post())[0] == 200, "a burst is admitted"
        guarded.now_s += STANDING_S + 0.1
        with guarded.backlog.image():
            status, headers, problem = await guarded.post()
        assert (status, problem["code"]) == (429, "overloaded")
        assert int(headers["retry-after"]) > 0
        assert guarded.inner.bodies == [5], "the body of the refused request is not read"
        assert guarded.metric("rejected_total", reason="overloaded") == 1
    assert (await guarded.post())[0] == 200


async def test_failed_and_cancelled_requests_give_back_their_places(guarded: Guarded) -> None:
    guarded.inner.error = KeyError("inner")
    for _ in range(5):
        status, _, problem = await guarded.post()
        assert (status, problem["code"]) == (500, "internal")
    guarded.inner.hold = asyncio.Event()
    for _ in range(5):
        task = asyncio.create_task(guarded.post())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert guarded.metric("requests_in_flight") == 0


@pytest.mark.parametrize(("path", "limit"), [("/v1/emotions", 100), ("/v1/emotions/batch", 300)])
async def test_a_body_with_too_large_a_content_length_is_not_read(
    guarded: Guarded, path: str, limit: int
) -> None:
    assert (await guarded.post(path, [b"x" * limit], content_length=str(limit)))[0] == 200
    status, _, problem = await guarded.post(path, [b"x"], content_length=str(limit + 1))
    assert (status, problem["code"]) == (413, "body_too_large")
    assert str(limit) in problem["detail"]
    assert guarded.inner.bodies == [limit]
    assert guarded.metric("rejected_total", reason="body_too_large") == 1
    assert guarded.metric("requests_in_flight") == 0


@pytest.mark.parametrize("headers", [{}, {"content_length": "5"}])
async def test_the_received_bytes_are_counted(guarded: Guarded, headers: dict[str, str]) -> None:
    chunks = [b"x" * 50, b"x" * 50]
    assert (await guarded.post(chunks=chunks, **headers))[0] == 200
    status, _, problem = await guarded.post(chunks=[*chunks, b"x"], **headers)
    assert (status, problem["code"]) == (413, "body_too_large")
    assert "100 bytes" in problem["detail"]
    assert guarded.inner.bodies == [100]
    assert guarded.metric("requests_in_flight") == 0


@pytest.mark.parametrize(("method", "path"), [("GET", "/livez"), ("GET", "/metrics"), ("HEAD", "/docs/")])
async def test_other_routes_are_not_guarded(guarded: Guarded, method: str, path: str) -> None:
    guarded.readiness.drain()
    status, _, _ = await guarded.post(path, [b"x" * 1000], method=method)
    assert status == 200
    assert guarded.inner.deadlines == [NEVER]
    assert guarded.metric("requests_in_flight") == 0


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/emotions", "method_not_allowed"),
        ("POST", "/other", "not_found"),
        # In a regular expression of a router, `$` also matches before a last line break.
        ("GET", "/metrics\n", "not_found"),
        ("GET", "/docs//", "not_found"),
    ],
)
async def test_routes_that_the_table_lacks_are_not_reached(
    guarded: Guarded, method: str, path: str, code: str
) -> None:
    _, headers, problem = await guarded.post(path, method=method)
    assert problem["code"] == code
    assert headers.get("allow") == ("POST" if code == "method_not_allowed" else None)
    assert guarded.inner.deadlines == []


async def test_lifespan_events_pass(guarded: Guarded) -> None:
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    in_flight = InFlight(2, 300, guarded.backlog, guarded.metrics)
    app = Admission(inner, LIMITS, Readiness(draining=True), in_flight)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        pass

    await app({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan"]


async def test_incomplete_bodies_take_no_place(guarded: Guarded) -> None:
    """There are two places. Five requests with endless bodies take none, so a sixth request is admitted."""
    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/emotions", "headers": []}
    never = asyncio.Event()

    async def trickle() -> None:
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await never.wait()
            sent = True
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: Message) -> None:
            raise AssertionError("a request without its complete body has an answer")

        await guarded.app(dict(scope), receive, send)

    slow = [asyncio.create_task(trickle()) for _ in range(5)]
    await settle()
    assert guarded.metric("requests_in_flight") == 0
    assert (await guarded.post())[0] == 200
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert guarded.metric("requests_in_flight") == 0


async def test_bodies_in_memory_are_bounded_together(guarded: Guarded) -> None:
    """The limit is 300 bytes: the largest batch, which is more than two images."""
    guarded.inner.hold = asyncio.Event()
    first = asyncio.create_task(guarded.post("/v1/emotions/batch", [b"x" * 250]))
    await settle()
    status, _, problem = await guarded.post("/v1/emotions", [b"x" * 51])
    assert (status, problem["code"]) == (429, "overloaded")
    assert "bytes" in problem["detail"]
    second = asyncio.create_task(guarded.post("/v1/emotions", [b"x" * 50]))
    await settle()
    guarded.inner.hold.set()
    assert [(await task)[0] for task in (first, second)] == [200, 200]
    assert (await guarded.post("/v1/emotions/batch", [b"x" * 300]))[0] == 200


async def test_a_body_that_is_complete_when_all_places_are_taken_is_overloaded(guarded: Guarded) -> None:
    """The request began while a place was free."""
    arriving = asyncio.Event()
    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/emotions", "headers": []}

    async def receive() -> Message:
        await arriving.wait()
        return {"type": "http.request", "body": b"x", "more_body": False}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    late = asyncio.create_task(guarded.app(scope, receive, send))
    await settle()
    guarded.inner.hold = asyncio.Event()
    admitted = [asyncio.create_task(guarded.post()) for _ in range(2)]
    await settle()
    arriving.set()
    await late
    assert sent[0]["status"] == 429
    guarded.inner.hold.set()
    assert [(await task)[0] for task in admitted] == [200, 200]
