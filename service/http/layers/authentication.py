"""Who may call what: API keys and their scopes (pure ASGI)."""

from __future__ import annotations

import functools

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.keys import Keyring
from service.access.scopes import Scope as KeyScope
from service.core.errors import Forbidden, Unauthorized
from service.http.request_state import state_of

KEY_SUBPROTOCOL = "key."


class Authentication:
    """Checks the key in the head of a request, before its body is read.

    An unknown address needs a key of any scope: callers without a key cannot learn which addresses exist.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, allow_anonymous: bool) -> None:
        self._app = app
        self._keyring = keyring
        self._allow_anonymous = allow_anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            state = state_of(scope)
            is_open = state.policy is not None and state.policy.key_scope is None
            if not is_open and not state.at_admin_port:
                self._authenticate(scope)
                state.check_key = functools.partial(self._authenticate, scope)
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> None:
        state = state_of(scope)
        needed = None if state.policy is None else state.policy.key_scope
        sent = sent_key(scope)
        if sent is None:
            if self._allow_anonymous and needed is not KeyScope.ADMIN:
                return
            raise Unauthorized("no key was sent; send it as Authorization: Bearer KEY, or as X-API-Key")
        key = self._keyring.find(sent)
        if key is None:
            raise Unauthorized("the key is unknown")
        state.key = key
        if key.expired:
            raise Unauthorized("the key has expired")
        if needed is not None and needed not in key.scopes:
            raise Forbidden(f"the key lacks the scope {needed}")


def sent_key(scope: Scope) -> str | None:
    """The key of a request. `X-API-Key` wins: a proxy may need `Authorization` for itself.

    A page cannot set headers of a WebSocket, but subprotocols: there the key follows `KEY_SUBPROTOCOL`.
    """
    bearer = None
    for name in scope.get("subprotocols", ()):
        if name.startswith(KEY_SUBPROTOCOL):
            bearer = name.removeprefix(KEY_SUBPROTOCOL)
    for name, value in scope["headers"]:
        # A client sends an empty header when its variable is not set.
        if name == b"x-api-key" and (key := value.decode("latin-1").strip()):
            return str(key)
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                bearer = token.strip()
    return bearer or None
