"""The table of rules for all routes. The service does not start if a route has no entry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute, compile_path

from service.access.scopes import Scope as KeyScope

WEBSOCKET = "WEBSOCKET"
STREAM = "/v1/stream"
SESSIONS, SESSION = "/v1/sessions", "/v1/sessions/{id}"
RECORDINGS, RECORDING = "/v1/recordings", "/v1/recordings/{id}"
DOCS_FILES = "/static-offline-docs"


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """The rules that the layers apply to a request. `GET` includes `HEAD`; a method may be `WEBSOCKET`."""

    method: str
    path: str
    key_scope: KeyScope | None
    """The scope that a key must have; None: no key is needed."""
    port: Literal["public", "admin", "both"]
    """The port that serves the route, if there is an admin port."""
    body_limit: Literal["image", "batch", "options", "recording"] | None = None
    """What limits the body, or each frame of a stream; None: the route reads no body."""
    spooled: bool = False
    """Whether the body may exceed the memory, and may take longer than the deadline of a request."""
    timed: bool = True
    """Whether the duration of a request says something about the speed of the service."""
    rate_images: int | None = None
    """Images spent of the caller's rate before the body is read; None: the route is not counted."""
    audited: bool = False
    quiet: bool = False
    """Whether requests are logged at level debug only."""
    no_store: bool = False
    """Whether no cache may keep the answer."""


def _api(method: str, path: str, *, timed: bool = True) -> RoutePolicy:
    return RoutePolicy(method, path, KeyScope.PREDICT, "public", timed=timed, no_store=True)


ROUTES = (
    RoutePolicy(
        "POST",
        "/v1/emotions",
        KeyScope.PREDICT,
        "public",
        body_limit="image",
        rate_images=1,
        audited=True,
        no_store=True,
    ),
    # The route spends the other images: their number is known once the body is read.
    RoutePolicy(
        "POST",
        "/v1/emotions/batch",
        KeyScope.BATCH,
        "public",
        body_limit="batch",
        rate_images=1,
        audited=True,
        no_store=True,
    ),
    # To open a stream costs nothing: its route spends one image for each frame.
    RoutePolicy(
        WEBSOCKET,
        STREAM,
        KeyScope.PREDICT,
        "public",
        body_limit="image",
        rate_images=0,
        audited=True,
        no_store=True,
    ),
    # The work spends one more image for each frame.
    RoutePolicy(
        "POST",
        RECORDINGS,
        KeyScope.PREDICT,
        "public",
        body_limit="recording",
        spooled=True,
        timed=False,
        rate_images=1,
        audited=True,
        no_store=True,
    ),
    _api("GET", RECORDING),
    _api("DELETE", RECORDING),
    _api("GET", f"{RECORDING}/events", timed=False),
    _api("GET", f"{RECORDING}/timeline"),
    _api("GET", f"{RECORDING}/report"),
    _api("GET", f"{RECORDING}/plot"),
    _api("GET", STREAM),
    RoutePolicy("POST", SESSIONS, KeyScope.PREDICT, "public", body_limit="options", no_store=True),
    _api("GET", f"{SESSION}/report"),
    _api("DELETE", SESSION),
    _api("GET", "/v1/models"),
    _api("GET", "/v1/models/{name}"),
    # A browser sends no key when it opens a page.
    RoutePolicy("GET", "/", None, "both"),
    RoutePolicy("GET", "/playground/{name}", None, "public", quiet=True),
    # Probes have no key.
    RoutePolicy("GET", "/livez", None, "both", quiet=True),
    RoutePolicy("GET", "/readyz", None, "both", quiet=True),
    RoutePolicy("GET", "/metrics", KeyScope.ADMIN, "admin", quiet=True),
    RoutePolicy("GET", "/docs", KeyScope.ADMIN, "admin"),
    RoutePolicy("GET", "/openapi.json", KeyScope.ADMIN, "admin"),
    RoutePolicy("GET", f"{DOCS_FILES}/{{path:path}}", KeyScope.ADMIN, "admin"),
)


class RouteWithoutPolicyError(Exception):
    """The application has a route without an entry in the table."""


class RouteTable:
    def __init__(self, policies: Iterable[RoutePolicy] = ROUTES) -> None:
        self._policies = {(policy.method, policy.path): policy for policy in policies}
        self._templates: list[tuple[re.Pattern[str], str]] = [
            (compile_path(path)[0], path) for _, path in self._policies if "{" in path
        ]
        self._methods: dict[str, list[str]] = {}
        for method, path in self._policies:
            self._methods.setdefault(path, []).append(method)

    def find(self, path: str) -> tuple[str, str] | None:
        """The table's path for a request's path, and the matching form of the latter; None if unknown."""
        for candidate in (path, path.removesuffix("/")):
            if candidate in self._methods:
                return candidate, candidate
            for pattern, template in self._templates:
                if pattern.fullmatch(candidate):
                    return template, candidate
        return None

    def policy(self, method: str, template: str) -> RoutePolicy | None:
        return self._policies.get(("GET" if method == "HEAD" else method, template))

    def allowed(self, template: str) -> list[str]:
        """The methods of a path of the table."""
        methods = [method for method in self._methods[template] if method != WEBSOCKET]
        return [*methods, "HEAD"] if "GET" in methods else methods

    def ports(self, template: str) -> frozenset[str]:
        """The ports that serve a path of the table: `public`, `admin` or both."""
        found = {self._policies[method, template].port for method in self._methods[template]}
        return frozenset({"public", "admin"} if "both" in found else found)

    def check(self, routes: Iterable[BaseRoute]) -> None:
        """Raise `RouteWithoutPolicyError` if a route has no entry."""
        for route in routes:
            for method, path in _addresses(route):
                if self.policy(method, path) is None:
                    raise RouteWithoutPolicyError(
                        f"{method} {path} has no entry in service/http/route_table.py"
                    )


def _addresses(route: BaseRoute) -> list[tuple[str, str]]:
    match route:
        case Route():
            return [(method, route.path) for method in route.methods or ()]
        case WebSocketRoute():
            return [(WEBSOCKET, route.path)]
        case Mount():
            return [("GET", f"{route.path}/{{path:path}}")]
    raise RouteWithoutPolicyError(f"{route!r} is a kind of route that the table cannot describe")
