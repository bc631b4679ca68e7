"""Limits the rate of each caller (pure ASGI)."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.rates import Caller, Rate
from service.http.quota import Quota
from service.http.request_state import state_of

if TYPE_CHECKING:
    from service.access.limiter import Limiter


class Quotas:
    """Counts a request before its body is read. The route spends the rest once it knows the images."""

    def __init__(self, app: ASGIApp, limiter: Limiter, default: Rate | None) -> None:
        self._app = app
        self._limiter = limiter
        self._default = default

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        policy = state_of(scope).policy if scope["type"] in ("http", "websocket") else None
        if policy is not None and policy.rate_images is not None:
            quota = state_of(scope).quota = self._quota(scope)
            if quota is not None and policy.rate_images:
                await quota.spend(policy.rate_images)
        await self._app(scope, receive, send)

    def _quota(self, scope: Scope) -> Quota | None:
        key = state_of(scope).key
        if key is not None and key.rate is not None:
            return Quota(self._limiter, key.rate, "key", Caller("key", key.name))
        if self._default is None:
            return None
        caller = Caller("key", key.name) if key is not None else Caller("address", address_of(scope))
        return Quota(self._limiter, self._default, "default", caller)


def address_of(scope: Scope) -> str:
    """The client's address; of IPv6 its /64 network, because one subscriber has a whole /64."""
    client = scope.get("client")
    host: str = client[0] if client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False).network_address)
    return host
