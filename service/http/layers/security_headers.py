"""Headers that tell browsers what not to do with an answer (pure ASGI)."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.request_state import state_of

Header = tuple[bytes, bytes]

# The messages of an application that carry the head of its answer.
HEADS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})

ALWAYS: list[Header] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
CONTENT_POLICY = b"content-security-policy"
LOADS_NOTHING: Header = (CONTENT_POLICY, b"default-src 'none'; frame-ancestors 'none'")
# No preload and no subdomains: only the owner of the domain can promise these.
HSTS: Header = (b"strict-transport-security", b"max-age=31536000")
NOT_STORED: Header = (b"cache-control", b"no-store")


def headers_of(*, tls: bool, no_store: bool) -> list[Header]:
    """The security headers of an answer, except `Content-Security-Policy`."""
    return [*ALWAYS, *([NOT_STORED] if no_store else ()), *([HSTS] if tls else ())]


class SecurityHeaders:
    """Adds the headers to every answer. Pages set their own content policy; other answers load nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        policy = state_of(scope).policy
        added = headers_of(
            tls=scope["scheme"] in ("https", "wss"), no_store=policy is None or policy.no_store
        )

        async def guarded_send(message: Message) -> None:
            if message["type"] in HEADS:
                headers = [*message.get("headers", ()), *added]
                if all(name != CONTENT_POLICY for name, _ in headers):
                    headers.append(LOADS_NOTHING)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, guarded_send)
