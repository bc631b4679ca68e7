"""What the layers and the route of one request tell each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.types import Scope

from service.access.keys import Key
from service.core.deadline import NEVER, Deadline
from service.http.quota import Quota
from service.http.route_table import RoutePolicy
from service.telemetry.audit import AuditTotals

_KEY = "expressnet"


@dataclass(slots=True)
class RequestState:
    """Made by `Observation`, the outermost layer; the layers inside fill it in."""

    request_id: str
    policy: RoutePolicy | None = None
    """None for an address or method that no route has."""
    allowed_methods: Sequence[str] = ()
    """Those of the address; none where there is nothing."""
    ports: frozenset[str] = frozenset()
    """Where the address is, if there is an admin port."""
    disconnected: asyncio.Future[None] | None = None
    """Done once the client has left; None where the server cannot say."""
    at_admin_port: bool = False
    key: Key | None = None
    check_key: Callable[[], None] = lambda: None
    """Raises `Unauthorized` or `Forbidden` once the key is no longer good: a stream may outlive it."""
    quota: Quota | None = None
    deadline: Deadline = NEVER
    totals: Callable[[], AuditTotals] = AuditTotals
    """For the audit, by the route."""
    logged: Mapping[str, object] = field(default_factory=dict)
    """More for the request's log line, by the route."""


def state_of(scope: Scope) -> RequestState:
    state: RequestState = scope["state"][_KEY]
    return state


def set_state(scope: Scope, state: RequestState) -> None:
    scope.setdefault("state", {})[_KEY] = state
