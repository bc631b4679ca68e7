"""The one place where an error becomes an answer; outer layers add headers to it (pure ASGI)."""

from __future__ import annotations

import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.errors import Internal, ServiceError
from service.http.layers.security_headers import HEADS
from service.http.problems import problem_response
from service.http.request_state import state_of
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics

INTERNAL_ERROR = 1011  # RFC 6455, 7.4.1


class Refusals:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun: str | None = None

        async def seen_send(message: Message) -> None:
            nonlocal begun
            if message["type"] in HEADS:
                begun = message["type"]
            await send(message)

        try:
            await self._app(scope, receive, seen_send)
        except Exception as error:
            if scope["type"] not in ("http", "websocket"):
                raise
            # No variable of this frame may keep the error: its traceback keeps the frame.
            await self._answer(error, begun, scope, receive, send)

    async def _answer(
        self, error: Exception, begun: str | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        problem = error if isinstance(error, ServiceError) else Internal("")
        if begun or isinstance(problem, Internal):
            log.error("request failed", error=type(error).__name__, exc_info=error)
        if begun == "websocket.accept":
            with contextlib.suppress(OSError):  # the client may have left by then
                await send({"type": "websocket.close", "code": INTERNAL_ERROR})
        elif not begun:
            self._metrics.count_rejection(problem)
            await problem_response(problem, state_of(scope).request_id)(scope, receive, send)
