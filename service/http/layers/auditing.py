"""Writes each image request and each stream to the audit (pure ASGI)."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.errors import ServiceError
from service.http.layers.observation import SWITCHING_PROTOCOLS, TOO_MANY
from service.http.request_state import state_of
from service.telemetry.audit import Audit


class Auditing:
    """The innermost layer: requests that other layers refuse write no lines."""

    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        policy = state_of(scope).policy if scope["type"] in ("http", "websocket") else None
        if policy is None or not policy.audited:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        # An unexpected exception is answered with 500. A stream that was not opened processed no image.
        status = 500 if scope["type"] == "http" else None

        async def seen_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = SWITCHING_PROTOCOLS
            await send(message)

        try:
            await self._app(scope, receive, seen_send)
        except ServiceError as error:
            if scope["type"] == "http":
                status = error.status
            raise
        finally:
            if status not in (None, TOO_MANY):
                state = state_of(scope)
                self._audit.write(
                    policy.path,
                    state.request_id,
                    None if state.key is None else state.key.name,
                    status,
                    time.perf_counter() - started,
                    state.totals(),
                )
