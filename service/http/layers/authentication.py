"""Who may call what: API keys and their scopes (pure ASGI)."""

from __future__ import annotations

import functools

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.keys import Key, Keyring
from service.access.scopes import Scope as Opens
from service.core.errors import Forbidden, ServiceError, Unauthorized
from service.http.layers.ports import API, HOME, PLAYGROUND, PROBES
from service.http.problems import problem_response
from service.telemetry.metrics import Metrics

BATCH = "/v1/emotions/batch"
KEY_SUBPROTOCOL = "key."


def is_open(path: str) -> bool:
    """Whether nobody needs a key: a prober has none, and who opens a page in a browser cannot send one."""
    return path in PROBES or path == HOME or path.startswith(PLAYGROUND)


def needed(path: str) -> Opens:
    """What opens a path; whatever is not of the API is the operator's, also what is added later."""
    if path == BATCH:
        return Opens.BATCH
    return Opens.PREDICT if path.startswith(API) else Opens.ADMIN


class Authentication:
    """Judges the head of a request, before any of its body is read. Sets `scope["state"]["key"]`."""

    def __init__(self, app: ASGIApp, keyring: Keyring, allow_anonymous: bool, metrics: Metrics) -> None:
        self._app = app
        self._keyring = keyring
        self._allow_anonymous = allow_anonymous
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] in ("http", "websocket")
            and not is_open(scope["path"])
            and not scope["state"].get("admin_port")
        ):
            try:
                self._authenticate(scope)
                if scope["type"] == "websocket":
                    # A stream may outlive its key.
                    scope["state"]["authenticate"] = functools.partial(self._authenticate, scope)
            except ServiceError as error:
                self._metrics.count_rejection(error)
                # RFC 9110, 11.6.1: a 401 says how to do better.
                headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else None
                await problem_response(error, scope["state"]["request_id"], headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> None:
        opens = needed(scope["path"])
        sent = sent_key(scope)
        if sent is None:
            if self._allow_anonymous and opens is not Opens.ADMIN:
                return
            raise Unauthorized("no key was sent; send it as Authorization: Bearer KEY, or as X-API-Key")
        key = self._keyring.find(sent)
        if key is None:
            raise Unauthorized("the key is not known here")
        scope["state"]["key"] = key
        if key.expired:
            raise Unauthorized("the key has expired")
        if opens not in key.scopes:
            raise Forbidden(f"the key lacks the scope {opens}")


def sent_key(scope: Scope) -> str | None:
    """The key of a request. `X-API-Key` wins: a proxy may need `Authorization` for itself.

    Pages can set no headers of a WebSocket, but its subprotocols: there it stands behind `KEY_SUBPROTOCOL`.
    """
    bearer = None
    for name in scope.get("subprotocols", ()):
        if name.startswith(KEY_SUBPROTOCOL):
            bearer = name.removeprefix(KEY_SUBPROTOCOL)
    for name, value in scope["headers"]:
        # A client sends an empty one when its variable is not set.
        if name == b"x-api-key" and (key := value.decode("latin-1").strip()):
            return str(key)
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                bearer = token.strip()
    return bearer or None


def key_of(scope: Scope) -> Key | None:
    """The key that a request was let in with."""
    key: Key | None = scope["state"].get("key")
    return key
