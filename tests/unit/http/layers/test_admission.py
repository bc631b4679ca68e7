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

from service.core.backlog import LEAST_LIMIT, STANDING_S, Backlog
from service.core.deadline import Deadline
from service.core.errors import BodyTooLarge, Overloaded
from service.http.layers.admission import Admission
from service.http.routes.health import Readiness
from service.settings import Settings
from service.telemetry.metrics import Metrics

SETTINGS = Settings(body_limit_bytes=100, batch_body_limit_bytes=300, max_in_flight_requests=2, timeout_s=10)


class Inner:
    """The guarded application: reads the whole body, and can be held while it does."""

    def __init__(self) -> None:
        self.hold: asyncio.Event | None = None
        self.deadlines: list[Deadline | None] = []
        self.bodies: list[int] = []
        self.error: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.deadlines.append(scope["state"].get("deadline"))
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


class Door:
    """An admission with its surroundings, and a client that knocks."""

    def __init__(self) -> None:
        self.inner = Inner()
        self.readiness = Readiness(warmed_up=True)
        self.now_s = 0.0
        self.backlog = Backlog(workers=1, images_per_worker=1, now=lambda: self.now_s)
        self.metrics = Metrics()
        self.app = Admission(self.inner, SETTINGS, self.readiness, self.backlog, self.metrics)

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
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "state": {"request_id": "id-1"},
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
def door() -> Door:
    return Door()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_request_gets_in_with_the_default_deadline(door: Door) -> None:
    status, _, _ = await door.post()
    assert status == 200
    (deadline,) = door.inner.deadlines
    assert deadline is not None
    assert deadline.timeout_s == 10
    assert 9 < deadline.remaining_s() <= 10


@pytest.mark.parametrize(("timeout_ms", "timeout_s"), [("1", 0.001), ("2500", 2.5), ("10001", 10)])
async def test_the_caller_can_only_shorten_the_deadline(
    door: Door, timeout_ms: str, timeout_s: float
) -> None:
    await door.post(x_timeout_ms=timeout_ms)
    (deadline,) = door.inner.deadlines
    assert deadline is not None
    assert deadline.timeout_s == timeout_s


@pytest.mark.parametrize("timeout_ms", ["", "0", "-1", "1.5", "1e3", "soon", "1" * 10, "²", " 5"])
async def test_a_timeout_that_is_no_number_is_refused_by_name(door: Door, timeout_ms: str) -> None:
    status, _, problem = await door.post(x_timeout_ms=timeout_ms)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert "X-Timeout-Ms" in problem["detail"]
    assert door.inner.bodies == []


async def test_draining_lets_nobody_in(door: Door) -> None:
    door.readiness.drain()
    status, headers, problem = await door.post()
    assert (status, problem["code"], problem["request_id"]) == (503, "draining", "id-1")
    assert int(headers["retry-after"]) > 0
    assert door.metric("rejected_total", reason="draining") == 1


async def test_one_request_too_many_is_overloaded_at_once(door: Door) -> None:
    door.inner.hold = asyncio.Event()
    admitted = [asyncio.create_task(door.post()) for _ in range(2)]
    await settle()
    assert door.metric("requests_in_flight") == 2
    status, headers, problem = await asyncio.wait_for(door.post(), 5)
    assert (status, problem["code"]) == (429, "overloaded")
    assert int(headers["retry-after"]) > 0
    assert door.metric("rejected_total", reason="overloaded") == 1
    door.inner.hold.set()
    assert [(await task)[0] for task in admitted] == [200, 200]
    assert door.metric("requests_in_flight") == 0
    assert (await door.post())[0] == 200


async def test_a_queue_that_stands_takes_no_more(door: Door) -> None:
    with ExitStack() as images:
        for _ in range(LEAST_LIMIT - 1):
            images.enter_context(door.backlog.image())
        assert (await door.post())[0] == 200, "a burst is let in"
        door.now_s += STANDING_S + 0.1
        with door.backlog.image():
            status, headers, problem = await door.post()
        assert (status, problem["code"]) == (429, "overloaded")
        assert int(headers["retry-after"]) > 0
        assert door.inner.bodies == [5], "its body was not read"
        assert door.metric("rejected_total", reason="overloaded") == 1
    assert (await door.post())[0] == 200


async def test_places_are_given_back_by_whatever_ends_a_request(door: Door) -> None:
    door.inner.error = KeyError("inner")
    for _ in range(5):
        with pytest.raises(KeyError):
            await door.post()
    door.inner.hold = asyncio.Event()
    for _ in range(5):
        task = asyncio.create_task(door.post())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert door.metric("requests_in_flight") == 0


@pytest.mark.parametrize(("path", "limit"), [("/v1/emotions", 100), ("/v1/emotions/batch", 300)])
async def test_a_body_that_says_it_is_too_large_is_not_read(door: Door, path: str, limit: int) -> None:
    assert (await door.post(path, [b"x" * limit], content_length=str(limit)))[0] == 200
    status, _, problem = await door.post(path, [b"x"], content_length=str(limit + 1))
    assert (status, problem["code"]) == (413, "body_too_large")
    assert str(limit) in problem["detail"]
    assert door.inner.bodies == [limit]
    assert door.metric("rejected_total", reason="body_too_large") == 1
    assert door.metric("requests_in_flight") == 0


@pytest.mark.parametrize("headers", [{}, {"content_length": "5"}])
async def test_what_really_arrives_is_counted(door: Door, headers: dict[str, str]) -> None:
    chunks = [b"x" * 50, b"x" * 50]
    assert (await door.post(chunks=chunks, **headers))[0] == 200
    with pytest.raises(BodyTooLarge, match="100 bytes"):
        await door.post(chunks=[*chunks, b"x"], **headers)
    assert door.inner.bodies == [100]
    assert door.metric("requests_in_flight") == 0


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/livez"), ("GET", "/metrics"), ("GET", "/v1/emotions"), ("POST", "/other")]
)
async def test_other_routes_are_not_guarded(door: Door, method: str, path: str) -> None:
    door.readiness.drain()
    status, _, _ = await door.post(path, [b"x" * 1000], method=method)
    assert status == 200
    assert door.inner.deadlines == [None]
    assert door.metric("requests_in_flight") == 0


async def test_what_is_not_http_passes(door: Door) -> None:
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    app = Admission(inner, SETTINGS, Readiness(draining=True), door.backlog, door.metrics)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        pass

    await app({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan"]


async def test_bodies_that_trickle_in_take_no_place(door: Door) -> None:
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

        await door.app(scope | {"state": {"request_id": "slow"}}, receive, send)

    slow = [asyncio.create_task(trickle()) for _ in range(5)]
    await settle()
    assert door.metric("requests_in_flight") == 0
    assert (await door.post())[0] == 200
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert door.metric("requests_in_flight") == 0


async def test_bodies_in_memory_are_bounded_together(door: Door) -> None:
    """300 bytes: that of the largest batch, which is more than two images."""
    door.inner.hold = asyncio.Event()
    first = asyncio.create_task(door.post("/v1/emotions/batch", [b"x" * 250]))
    await settle()
    with pytest.raises(Overloaded, match="bytes"):
        await door.post("/v1/emotions", [b"x" * 51])
    second = asyncio.create_task(door.post("/v1/emotions", [b"x" * 50]))
    await settle()
    door.inner.hold.set()
    assert [(await task)[0] for task in (first, second)] == [200, 200]
    assert (await door.post("/v1/emotions/batch", [b"x" * 300]))[0] == 200


async def test_a_body_that_arrives_when_all_places_are_taken_is_overloaded(door: Door) -> None:
    """It came in while there was a place; the answer is the route's, as for a body that is too large."""
    arriving = asyncio.Event()
    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/emotions", "headers": []}

    async def receive() -> Message:
        await arriving.wait()
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message: Message) -> None:
        raise AssertionError("it is not admitted")

    late = asyncio.create_task(door.app(scope | {"state": {"request_id": "late"}}, receive, send))
    await settle()
    door.inner.hold = asyncio.Event()
    admitted = [asyncio.create_task(door.post()) for _ in range(2)]
    await settle()
    arriving.set()
    with pytest.raises(Overloaded):
        await late
    door.inner.hold.set()
    assert [(await task)[0] for task in admitted] == [200, 200]
