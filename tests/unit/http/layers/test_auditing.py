"""The auditing layer: which requests get a line in the audit file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.keys import Key
from service.core.errors import InvalidImage
from service.http.layers.auditing import Auditing
from service.http.layers.observation import Observation
from service.http.request_state import state_of
from service.http.route_table import RouteTable
from service.telemetry.audit import Audit, AuditTotals
from service.telemetry.metrics import Metrics


async def line_of(inner: ASGIApp, tmp_path: Path, *, path: str = "/v1/emotions", method: str = "POST") -> str:
    """The content of the audit file after one request with the key `shop`."""
    audit = Audit(tmp_path / "audit.jsonl", {}, [], lambda: None)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        pass

    async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
        state_of(scope).key = Key("shop", "0" * 64, frozenset())
        await Auditing(inner, audit)(scope, receive, send)

    headers = [(b"x-request-id", b"id-1")]
    try:
        await Observation(authenticated, Metrics(), RouteTable())(
            {"type": "http", "method": method, "path": path, "headers": headers}, receive, send
        )
    finally:
        audit.flush()
    return (tmp_path / "audit.jsonl").read_text()


def answering(status: int) -> ASGIApp:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        state_of(scope).totals = lambda: AuditTotals(images=1, faces=2)
        await PlainTextResponse("", status)(scope, receive, send)

    return inner


@pytest.mark.parametrize("path", ["/v1/emotions", "/v1/emotions/batch"])
@pytest.mark.parametrize("status", [200, 400, 413, 499, 504])
async def test_a_request_with_images_is_one_line(path: str, status: int, tmp_path: Path) -> None:
    line = json.loads(await line_of(answering(status), tmp_path, path=path))
    assert (line["route"], line["status"], line["request_id"], line["key"]) == (path, status, "id-1", "shop")
    assert (line["images"], line["faces"]) == (1, 2)


@pytest.mark.parametrize(
    ("status", "path", "method"),
    [(429, "/v1/emotions", "POST"), (200, "/v1/models", "GET"), (405, "/v1/emotions", "GET")],
)
async def test_rejected_floods_and_other_requests_are_no_line(
    status: int, path: str, method: str, tmp_path: Path
) -> None:
    assert await line_of(answering(status), tmp_path, path=path, method=method) == ""


@pytest.mark.parametrize(("error", "status"), [(KeyError(), 500), (InvalidImage("broken"), 400)])
async def test_a_failed_request_is_one_line_too(tmp_path: Path, error: Exception, status: int) -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    with pytest.raises(type(error)):
        await line_of(inner, tmp_path)
    line = json.loads((tmp_path / "audit.jsonl").read_text())
    assert (line["status"], line["images"], line["verdicts"]) == (status, 0, {})
