"""Headers that tell browsers what not to do with an answer (pure ASGI)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]

# The messages of an application that carry the head of its answer.
HEADS = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})

ALWAYS: list[Header] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
CLOSED = b"default-src 'none'; frame-ancestors 'none'"
# No preload and no subdomains: those are the owner of the domain's to promise.
HSTS: Header = (b"strict-transport-security", b"max-age=31536000")
NOT_STORED: Header = (b"cache-control", b"no-store")
ANSWERS = "/v1/"


def docs_policy(page: str) -> bytes:
    """The Content-Security-Policy under which the documentation works, and nothing that is put into it."""
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digests = [base64.b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ).encode()


class SecurityHeaders:
    """Around all else, so that no answer of the application goes without.

    `policies`: the Content-Security-Policy of each path that is a page; all else may load nothing.
    """

    def __init__(self, app: ASGIApp, policies: Mapping[str, bytes]) -> None:
        self._app = app
        self._policies = policies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        added = [
            *ALWAYS,
            (b"content-security-policy", self._policies.get(path, CLOSED)),
        ]
        if path.startswith(ANSWERS):
            added.append(NOT_STORED)
        if scope["scheme"] in ("https", "wss"):
            added.append(HSTS)

        async def guarded_send(message: Message) -> None:
            if message["type"] in HEADS:
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, guarded_send)
