"""Which pages may open a stream: browsers do not apply CORS to WebSockets (pure ASGI)."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.errors import OriginNotAllowed

DEFAULT_PORTS = {"http": 80, "https": 443}


class Origins:
    """Allows pages of the service's own address and of `EXPRESSNET_CORS_ORIGINS`.

    Programs send no `Origin` and are allowed, too.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and not self._may_open(Headers(scope=scope)):
            raise OriginNotAllowed(
                "the origin of the page differs from the Host header; configure the proxy to pass Host, or "
                "add the origin to EXPRESSNET_CORS_ORIGINS"
            )
        await self._app(scope, receive, send)

    def _may_open(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None or "*" in self._allowed or origin in self._allowed:
            return True
        return _host(origin) == _host(f"{urlsplit(origin).scheme}://{headers.get('host', '')}") is not None


def _host(url: str) -> tuple[str, int] | None:
    """Name and port. The scheme is skipped: behind a proxy with TLS this service does not see it."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None
