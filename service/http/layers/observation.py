"""The outermost layer: looks up the route, and adds request ids, metrics and log lines."""

from __future__ import annotations

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.disconnect import DISCONNECTED
from service.http.layers.request_ids import new_request_id
from service.http.layers.security_headers import HEADS
from service.http.request_state import RequestState, set_state
from service.http.route_table import WEBSOCKET, RouteTable
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics

CLIENT_LEFT = 499  # never sent: nginx's status for a request whose client left
TOO_MANY = 429
SWITCHING_PROTOCOLS = 101
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Observation:
    def __init__(self, app: ASGIApp, metrics: Metrics, routes: RouteTable, root_path: str = "") -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        method: str = scope.get("method", WEBSOCKET)
        offered = Headers(scope=scope).get("x-request-id", "")
        state = RequestState(
            offered if _REQUEST_ID.fullmatch(offered) else new_request_id(),
            disconnected=scope.get("state", {}).get(DISCONNECTED),
        )
        set_state(scope, state)
        root = scope["root_path"] = self._root_path
        path: str = scope["path"]
        # A proxy may or may not have removed its prefix.
        found = self._routes.find(path.removeprefix(root)) if path.startswith(f"{root}/") else None
        found = found or self._routes.find(path)
        label = "unmatched"  # never a raw path: a label has few values
        if found is not None:
            label, path = found
            state.policy = self._routes.policy(method, label)
            state.allowed_methods = self._routes.allowed(label)
            state.ports = self._routes.ports(label)
            scope["path"] = root + path
        status = 0

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] in HEADS:
                status = message.get("status", SWITCHING_PROTOCOLS)
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = state.request_id
                if state.quota is not None and status != SWITCHING_PROTOCOLS:
                    headers.update(state.quota.headers)
                await send(message)
                if method == "HEAD":  # a stream would keep the connection
                    await send({"type": "http.response.body"})
            elif method != "HEAD":
                await send(message)

        # A route answers HEAD as GET.
        inner = {**scope, "method": "GET"} if method == "HEAD" else scope
        with structlog.contextvars.bound_contextvars(request_id=state.request_id):
            try:
                await self._app(inner, receive, observed_send)
            finally:
                seconds = time.perf_counter() - started
                self._record(label, scope.get("method", "GET"), status or CLIENT_LEFT, seconds, state)

    def _record(self, route: str, method: str, status: int, seconds: float, state: RequestState) -> None:
        # The duration of a stream says nothing about the speed of the service.
        timed = status != SWITCHING_PROTOCOLS and (state.policy is None or state.policy.timed)
        self._metrics.request(route, method, status, seconds if timed else None)
        # A flood of requests must not flood the log; the metrics count every refusal.
        quiet = status == TOO_MANY or (state.policy is not None and state.policy.quiet)
        getattr(log, "debug" if quiet else "info")(
            "request",
            route=route,
            method=method,
            status=status,
            duration_ms=round(seconds * 1e3, 1),
            **({} if state.key is None else {"key": state.key.name}),
            **state.logged,
        )
