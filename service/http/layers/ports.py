"""Which calls are on which port, where metrics and documentation have one of their own (pure ASGI)."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.errors import NotFound
from service.http.problems import problem_response

PROBES = frozenset({"/livez", "/readyz"})
API = "/v1/"
HOME = "/"
PLAYGROUND = "/playground/"


class Ports:
    """API and playground on the public port, everything else on the admin port, probes and `/` on both.

    Sets `scope["state"]["admin_port"]`, by the socket that a request came through: no header can change it.
    """

    def __init__(self, app: ASGIApp, admin_port: int) -> None:
        self._app = app
        self._admin_port = admin_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            server = scope.get("server")
            at_admin = scope["state"]["admin_port"] = server is not None and server[1] == self._admin_port
            path: str = scope["path"]
            if path not in PROBES and path != HOME and path.startswith((API, PLAYGROUND)) == at_admin:
                error = NotFound("no resource has this address")
                await problem_response(error, scope["state"]["request_id"])(scope, receive, send)
                return
        await self._app(scope, receive, send)
