"""The state of one request, shared by its layers and its route."""

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
    """None if no route has this address and method."""
    allowed_methods: Sequence[str] = ()
    """Methods of the address; empty for an unknown address."""
    ports: frozenset[str] = frozenset()
    """Ports that serve the address, if there is an admin port."""
    disconnected: asyncio.Future[None] | None = None
    """Done once the client has left; None if the server cannot tell."""
    at_admin_port: bool = False
    key: Key | None = None
    check_key: Callable[[], None] = lambda: None
    """Raises `Unauthorized` or `Forbidden` once the key is not valid: a stream may outlive its key."""
    quota: Quota | None = None
    deadline: Deadline = NEVER
    totals: Callable[[], AuditTotals] = AuditTotals
    """Totals for the audit, set by the route."""
    logged: Mapping[str, object] = field(default_factory=dict)
    """More fields of the request's log line, set by the route."""


def state_of(scope: Scope) -> RequestState:
    state: RequestState = scope["state"][_KEY]
    return state


def set_state(scope: Scope, state: RequestState) -> None:
    scope.setdefault("state", {})[_KEY] = state
