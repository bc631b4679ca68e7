"""Which port serves which route, if there is an admin port (pure ASGI)."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.errors import NotFound
from service.http.request_state import state_of


class Ports:
    """Takes the port from the socket of a request: no header can change it."""

    def __init__(self, app: ASGIApp, admin_port: int) -> None:
        self._app = app
        self._admin_port = admin_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            state, server = state_of(scope), scope.get("server")
            state.at_admin_port = server is not None and server[1] == self._admin_port
            here = "admin" if state.at_admin_port else "public"
            if state.ports and here not in state.ports:
                raise NotFound("no resource has this address")
        await self._app(scope, receive, send)
