"""The layer that sees every answer: request ids, metrics, one log line per request, a net under all."""

from __future__ import annotations

import contextlib
import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.errors import Internal
from service.http.layers.request_ids import new_request_id
from service.http.layers.security_headers import HEADS
from service.http.problems import problem_response
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics

CLIENT_LEFT = 499  # never sent; the status of a request whose client hung up, as nginx counts it
TOO_MANY = 429
SWITCHING_PROTOCOLS = 101
INTERNAL_ERROR = 1011  # RFC 6455, 7.4.1
QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics", "/playground/{name}"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Observation:
    """Sets `scope["state"]["request_id"]` and sees every answer, also those to requests that failed."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else new_request_id()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] in HEADS:
                status = message.get("status", SWITCHING_PROTOCOLS)
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, observed_send)
            except Exception as error:
                log.exception("request failed", error=type(error).__name__)
                if status == SWITCHING_PROTOCOLS:
                    with contextlib.suppress(OSError):  # the client may have left by then
                        await send({"type": "websocket.close", "code": INTERNAL_ERROR})
                elif not status:
                    await problem_response(Internal(""), request_id)(scope, receive, observed_send)
            finally:
                self._record(scope, status or CLIENT_LEFT, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = self._route(scope)
        method = scope.get("method", "GET")  # a WebSocket is opened by nothing else
        # How long a stream is open says nothing about how quick the service is.
        self._metrics.request(route, method, status, None if status == SWITCHING_PROTOCOLS else seconds)
        # A flood must not become a flood of lines; the metrics count every refusal.
        level = "debug" if route in QUIET_ROUTES or status == TOO_MANY else "info"
        key = scope["state"].get("key")
        getattr(log, level)(
            "request",
            route=route,
            method=method,
            status=status,
            duration_ms=round(seconds * 1e3, 1),
            **({} if key is None else {"key": key.name}),
            **scope["state"].get("logged", {}),
        )

    def _route(self, scope: Scope) -> str:
        """A label of few values: the matched route, else the path if it is one of ours, else "unmatched"."""
        matched: str | None = getattr(scope.get("route"), "path", None)
        if matched is None and scope["path"] in self._routes:
            matched = scope["path"]
        return matched or "unmatched"
