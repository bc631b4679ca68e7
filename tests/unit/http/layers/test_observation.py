"""The outermost layer and the layer that answers errors, around a minimal ASGI application."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import weakref

import pytest
import structlog
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.errors import Overloaded
from service.http.layers.observation import CLIENT_LEFT, Observation
from service.http.layers.refusals import Refusals
from service.http.request_state import state_of
from service.http.route_table import RouteTable
from service.telemetry.metrics import Metrics


class Observed:
    """An application behind both layers, and a client that sends requests to it."""

    def __init__(self, inner: ASGIApp) -> None:
        self.metrics = Metrics()
        self.app = Observation(Refusals(inner, self.metrics), self.metrics, RouteTable())
        self.sent: list[Message] = []
        self.scope: Scope = {}

    async def call(self, path: str = "/v1/emotions", *, method: str = "POST", **headers: str) -> None:
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            self.sent.append(message)

        await self.app(self.scope, receive, send)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    def header(self, name: str) -> list[str]:
        return [value.decode() for key, value in self.sent[0]["headers"] if key.decode().lower() == name]

    def requests(self, route: str, status: int, method: str = "POST") -> float:
        labels = {"route": route, "method": method, "status": str(status)}
        return self.metrics.registry.get_sample_value("expressnet_http_requests_total", labels) or 0.0


def answering(status: int = 200) -> ASGIApp:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("inner", status)(scope, receive, send)

    return inner


async def test_a_good_request_id_is_echoed_and_passed_to_the_application() -> None:
    observed = Observed(answering())
    await observed.call(x_request_id="order-7.a:b_c")
    assert observed.header("x-request-id") == ["order-7.a:b_c"]
    assert state_of(observed.scope).request_id == "order-7.a:b_c"


@pytest.mark.parametrize("offered", ["", "a b", 'a"b', "a\nb", "é", "x" * 129])
async def test_a_request_id_that_could_harm_a_log_is_replaced(offered: str) -> None:
    observed = Observed(answering())
    await observed.call(x_request_id=offered)
    (request_id,) = observed.header("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert state_of(observed.scope).request_id == request_id


async def test_every_request_has_an_id_of_its_own() -> None:
    observed = Observed(answering())
    await observed.call()
    first = state_of(observed.scope).request_id
    await observed.call()
    assert state_of(observed.scope).request_id != first


async def test_an_id_set_by_the_application_is_not_doubled() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("", headers={"X-Request-ID": "inner"})(scope, receive, send)

    observed = Observed(inner)
    await observed.call(x_request_id="outer")
    assert observed.header("x-request-id") == ["outer"]


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/v1/models/expressnet_moe", "/v1/models/{name}"),
        ("/v1/emotions", "/v1/emotions"),
        ("/v1/emotions/", "/v1/emotions"),
        ("/v1/emotions//", "unmatched"),
        ("/wp-login.php", "unmatched"),
    ],
)
async def test_a_label_is_a_route_and_never_a_raw_path(path: str, label: str) -> None:
    observed = Observed(answering(404))
    await observed.call(path)
    assert observed.requests(label, 404) == 1
    duration = "expressnet_http_request_duration_seconds_count"
    assert observed.metrics.registry.get_sample_value(duration, {"route": label}) == 1


async def test_a_failure_becomes_a_problem_without_its_text() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("/srv/secret")

    observed = Observed(inner)
    await observed.call(x_request_id="id-1")
    assert observed.status == 500
    assert observed.header("content-type") == ["application/problem+json"]
    assert observed.header("x-request-id") == ["id-1"]
    body = b"".join(message.get("body", b"") for message in observed.sent)
    assert b"secret" not in body
    assert json.loads(body)["code"] == "internal"
    assert json.loads(body)["request_id"] == "id-1"
    assert observed.requests("/v1/emotions", 500) == 1


async def test_a_failure_after_the_head_was_sent_sends_no_second_head() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("too late")

    observed = Observed(inner)
    await observed.call()
    assert [message["type"] for message in observed.sent] == ["http.response.start"]
    assert observed.requests("/v1/emotions", 200) == 1


async def test_a_disconnected_client_is_counted_as_such() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    observed = Observed(inner)
    task = asyncio.create_task(observed.call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observed.sent == []
    assert observed.requests("/v1/emotions", CLIENT_LEFT) == 1


@pytest.mark.parametrize(
    ("route", "level"), [("/v1/models", "info"), ("/livez", "debug"), ("/metrics", "debug")]
)
async def test_each_request_is_one_line_and_probes_are_at_debug_level(route: str, level: str) -> None:
    with structlog.testing.capture_logs() as lines:
        await Observed(answering()).call(route, method="GET")
    (line,) = lines
    assert line["log_level"] == level
    assert line["event"] == "request"
    assert (line["route"], line["method"], line["status"]) == (route, "GET", 200)
    assert line["duration_ms"] >= 0


async def test_an_answer_429_is_logged_at_debug_level() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("", 429)(scope, receive, send)

    observed = Observed(refusing)
    with structlog.testing.capture_logs() as lines:
        await observed.call()
    assert [line["log_level"] for line in lines] == ["debug"]
    assert observed.requests("/v1/emotions", 429) == 1


async def test_the_request_id_is_bound_only_while_the_request_runs() -> None:
    seen: list[object] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(structlog.contextvars.get_contextvars().get("request_id"))
        await PlainTextResponse("")(scope, receive, send)

    await Observed(inner).call(x_request_id="id-1")
    assert seen == ["id-1"]
    assert "request_id" not in structlog.contextvars.get_contextvars()


async def test_lifespan_events_pass_unobserved() -> None:
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    observed = Observed(inner)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        pass

    await observed.app({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan"]


async def test_a_refusal_leaves_no_work_to_the_garbage_collector() -> None:
    errors: list[weakref.ref[Overloaded]] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        error = Overloaded("")
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        await Observed(inner).call()
        assert [error() for error in errors] == [None]
    finally:
        gc.enable()
