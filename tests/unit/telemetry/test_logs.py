"""Logs: one line per event with the id of the request, and no line has data of a photo or a person."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send

from service.http.layers.observation import Observation
from service.http.layers.refusals import Refusals
from service.http.route_table import RouteTable
from service.telemetry.logs import configure_logs, log
from service.telemetry.metrics import Metrics

IMAGE = b"pixels-of-a-person"


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    handlers, level, uvicorn_level = root.handlers, root.level, uvicorn.level
    configured = structlog.get_config()
    yield
    root.handlers = handlers
    root.setLevel(level)
    uvicorn.setLevel(uvicorn_level)
    structlog.configure(**configured)
    # `cache_logger_on_first_use` has fixed the module's logger to this test's configuration.
    vars(log).pop("bind", None)


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(capsys).splitlines()]


def written(capsys: pytest.CaptureFixture[str]) -> str:
    for handler in logging.getLogger().handlers:
        handler.flush()
    return capsys.readouterr().err


async def request(observed: Observation, request_id: str) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": IMAGE, "more_body": False}

    async def send(message: Message) -> None:
        pass

    headers = [(b"x-request-id", request_id.encode())]
    await observed({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    """Fails while the image is a local variable of every function on the stack."""
    body = (await receive())["body"]
    probabilities = {"sadness": 0.87654321}
    classify(body, probabilities)


def classify(image: bytes, probabilities: dict[str, float]) -> None:
    raise KeyError(len(image) + len(probabilities))


def test_an_event_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    log.info("ready", classifier="tiny", version="1")
    (line,) = events(capsys)
    assert line["event"] == "ready"
    assert (line["classifier"], line["level"], line["logger"]) == ("tiny", "info", "service")
    assert line["timestamp"].endswith("Z")


def test_the_standard_library_logs_in_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    with structlog.contextvars.bound_contextvars(request_id="id-1"):
        logging.getLogger("uvicorn.error").warning("port %d is busy", 80)
    (line,) = events(capsys)
    assert line["event"] == "port 80 is busy"
    assert (line["level"], line["logger"], line["request_id"]) == ("warning", "uvicorn.error", "id-1")


def test_events_below_the_level_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning", "json")
    log.info("quiet")
    logging.getLogger("uvicorn.error").info("quiet too")
    log.warning("loud")
    assert [line["event"] for line in events(capsys)] == ["loud"]


async def test_every_line_of_a_request_has_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        log.warning("inside")

    configure_logs("info", "json")
    await request(Observation(inner, Metrics(), RouteTable()), "id-1")
    log.info("outside")
    lines = events(capsys)
    assert [(line["event"], line.get("request_id")) for line in lines] == [
        ("inside", "id-1"),
        ("request", "id-1"),
        ("outside", None),
    ]


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_a_failure_is_logged_without_the_image(
    capsys: pytest.CaptureFixture[str], log_format: Literal["json", "text"]
) -> None:
    configure_logs("info", log_format)
    metrics = Metrics()
    await request(Observation(Refusals(failing, metrics), metrics, RouteTable()), "id-1")
    logged = written(capsys)
    assert "request failed" in logged
    assert "id-1" in logged
    assert "KeyError" in logged
    assert "in classify" in logged or "classify(" in logged, "the traceback is missing"
    assert IMAGE.decode() not in logged
    assert "0.876" not in logged


async def test_a_failure_is_one_json_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    metrics = Metrics()
    await request(Observation(Refusals(failing, metrics), metrics, RouteTable()), "id-1")
    failed, answered = events(capsys)
    assert (failed["event"], failed["level"], failed["error"]) == ("request failed", "error", "KeyError")
    assert failed["request_id"] == "id-1"
    assert "in classify" in failed["exception"]
    assert (answered["event"], answered["status"]) == ("request", 500)


def test_the_text_format_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "text")
    log.info("ready", classifier="tiny")
    (line,) = written(capsys).splitlines()
    assert "ready" in line
    assert "classifier=tiny" in line
    assert "\x1b" not in line
