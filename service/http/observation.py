"""The outermost layer: request ids, request metrics, one log line per request, and a net under everything."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Internal
from service.http.problems import problem_response
from service.logs import log
from service.metrics import Metrics

CLIENT_LEFT = 499  # never sent; the status of a request whose client hung up, as nginx counts it
QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Observation:
    """Sets `scope["state"]["request_id"]` and sees every answer, also those to requests that failed."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, observed_send)
            except Exception as error:
                log.exception("request failed", error=type(error).__name__)
                if not status:
                    await problem_response(Internal(""), request_id)(scope, receive, observed_send)
            finally:
                self._record(scope, status or CLIENT_LEFT, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = self._route(scope)
        self._metrics.http_requests.labels(route, scope["method"], str(status)).inc()
        self._metrics.http_request_duration.labels(route).observe(seconds)
        level = "debug" if route in QUIET_ROUTES else "info"
        getattr(log, level)(
            "request", route=route, method=scope["method"], status=status, duration_ms=round(seconds * 1e3, 1)
        )

    def _route(self, scope: Scope) -> str:
        """A label of few values: the matched route, else the path if it is one of ours, else "unmatched"."""
        matched: str | None = getattr(scope.get("route"), "path", None)
        if matched is None and scope["path"] in self._routes:
            matched = scope["path"]
        return matched or "unmatched"
