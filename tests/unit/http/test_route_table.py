"""The table of routes: a route without an entry stops the start, and an entry has the limits of a route."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse
from websockets.sync.client import connect

from service.access.scopes import Scope
from service.http import app as module
from service.http.app import create_app
from service.http.route_table import ROUTES, RoutePolicy, RouteTable, RouteWithoutPolicyError
from service.settings import Settings
from tests.conftest import free_port, serving
from tests.fake_engine import fake_engines

FACES = RoutePolicy(
    "POST", "/v1/faces", Scope.PREDICT, "public", body_limit="image", rate_images=1, audited=True
)


async def faces(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def with_faces(settings: Settings) -> FastAPI:
    app = create_app(settings, fake_engines())
    app.add_api_route("/v1/faces", faces, methods=["POST"])
    return app


async def test_a_route_without_an_entry_stops_the_start() -> None:
    app = with_faces(Settings())
    with pytest.raises(RouteWithoutPolicyError, match=r"POST /v1/faces has no entry in \S+route_table\.py"):
        async with app.router.lifespan_context(app):
            pass


async def test_an_unknown_kind_of_route_stops_the_start() -> None:
    app = create_app(Settings(), fake_engines())
    app.host("elsewhere.example", FastAPI())
    with pytest.raises(RouteWithoutPolicyError, match="kind of route"):
        async with app.router.lifespan_context(app):
            pass


def test_a_route_with_an_entry_is_limited_counted_and_audited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "ROUTES", (*ROUTES, FACES))
    audit = tmp_path / "audit.jsonl"
    settings = Settings(port=0, body_limit_bytes=1000, rate_limit="3/day", audit_file=audit)
    with serving(settings, app=with_faces(settings)) as gateway:
        assert gateway.client.post("/v1/faces", content=b"x" * 1000).text == "1000"
        large = gateway.client.post("/v1/faces", content=b"x" * 1001)
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
        without_length = gateway.client.post("/v1/faces", content=iter([b"x" * 600] * 2))
        assert (without_length.status_code, without_length.json()["code"]) == (413, "body_too_large")
        limited = gateway.client.post("/v1/faces", content=b"x")
        assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
        assert limited.headers["RateLimit"].startswith('"default";r=0;')
        for status, count in ((200, 1), (413, 2), (429, 1)):
            labels = f'method="POST",route="/v1/faces",status="{status}"'
            assert gateway.metric(f"expressnet_http_requests_total{{{labels}}}") == count
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["route"], line["status"]) for line in lines] == [("/v1/faces", 200), ("/v1/faces", 413)]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/models", ("/v1/models", "/v1/models")),
        ("/v1/models/", ("/v1/models", "/v1/models")),
        ("/v1/models/yunet/", ("/v1/models/{name}", "/v1/models/yunet")),
        ("/", ("/", "/")),
        ("/static-offline-docs/a/b", ("/static-offline-docs/{path:path}", "/static-offline-docs/a/b")),
        ("/v1/models/a/b", None),
        ("/metrics\n", None),
        ("//", ("/", "/")),
        ("", None),
    ],
)
def test_the_table_finds_the_route_of_a_path(path: str, found: tuple[str, str] | None) -> None:
    assert RouteTable().find(path) == found


@pytest.mark.parametrize("root_path", [None, "/faces"])
@pytest.mark.parametrize("prefix", ["", "/faces"])
def test_routes_work_behind_a_proxy_that_removes_the_prefix_or_keeps_it(
    root_path: str | None, prefix: str
) -> None:
    settings = Settings(port=0, root_path=root_path)
    with serving(settings, fake_engines()) as gateway:
        if prefix and not root_path:
            assert gateway.client.get(f"{prefix}/livez").status_code == 404
            return
        for path in ("/", "/docs", "/docs/", "/livez", "/v1/models", "/v1/models/", "/playground/main.js"):
            assert gateway.client.get(prefix + path).status_code == 200, path
        assert gateway.client.get(f"{prefix}/v1/models/").headers["Cache-Control"] == "no-store"
        assert gateway.client.get(f"{prefix}/nothing").status_code == 404
        document = gateway.client.get(f"{prefix}/openapi.json").json()
        assert document.get("servers") == ([{"url": root_path}] if root_path else None)
        with connect(f"{gateway.url.replace('http', 'ws', 1)}{prefix}/v1/stream/", proxy=None):
            pass


def test_the_root_path_may_be_the_beginning_of_a_route() -> None:
    with serving(Settings(port=0, root_path="/v1"), fake_engines()) as gateway:
        for path in ("/v1/models", "/v1/v1/models", "/livez", "/v1/livez"):
            assert gateway.client.get(path).status_code == 200, path


def test_routes_of_the_other_port_are_not_found_by_any_method() -> None:
    admin_port = free_port()
    with serving(Settings(port=0, admin_port=admin_port), fake_engines()) as gateway:
        admin = f"http://127.0.0.1:{admin_port}"
        assert gateway.client.post("/metrics").status_code == 404
        assert gateway.client.get(f"{admin}/v1/emotions").status_code == 404
        assert gateway.client.get("/v1/emotions").status_code == 405
        assert gateway.client.post(f"{admin}/metrics").status_code == 405


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/metrics", "/v1/models", "/v1/models/yunet", "/livez"]
)
def test_head_is_allowed_where_get_is_allowed(path: str) -> None:
    with serving(Settings(port=0), fake_engines()) as gateway:
        head = gateway.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["Content-Length"]) > 0
        other = gateway.client.delete(path)
        assert (other.status_code, other.headers["Allow"]) == (405, "GET, HEAD")


def test_a_page_of_another_origin_can_read_an_unexpected_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = RoutePolicy("GET", "/v1/broken", None, "public")
    monkeypatch.setattr(module, "ROUTES", (*ROUTES, policy))

    async def broken() -> None:
        raise KeyError("/srv/secret")

    settings = Settings(port=0, cors_origins=("https://app.example",))
    app = create_app(settings, fake_engines())
    app.add_api_route("/v1/broken", broken)
    with serving(settings, app=app) as gateway:
        answer = gateway.client.get("/v1/broken", headers={"Origin": "https://app.example"})
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert answer.headers["X-Request-ID"] == answer.json()["request_id"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "secret" not in answer.text
