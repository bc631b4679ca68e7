"""The layer that has each request for images, and each stream, written into the audit (pure ASGI)."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.layers.authentication import key_of
from service.http.layers.observation import SWITCHING_PROTOCOLS, TOO_MANY
from service.http.layers.quotas import COUNTED
from service.http.transport.sockets import STREAM
from service.telemetry.audit import Answered, Audit


class Auditing:
    """Inside all that refuses, so that a flood at the door is no flood of lines.

    Reads `scope["state"]["answered"]`, which the routes leave there.
    """

    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_audited(scope):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        # What `Observation` answers when nothing else was; a stream that was not opened looked at nothing.
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
        finally:
            if status not in (None, TOO_MANY):
                state, key = scope["state"], key_of(scope)
                self._audit.write(
                    scope["path"],
                    state["request_id"],
                    None if key is None else key.name,
                    status,
                    time.perf_counter() - started,
                    state.get("answered", Answered()),
                )


def _is_audited(scope: Scope) -> bool:
    path: str = scope["path"] if scope["type"] in ("http", "websocket") else ""
    return path == STREAM if scope["type"] == "websocket" else path in COUNTED and scope["method"] == "POST"
