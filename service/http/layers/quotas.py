"""How much each caller may ask for, and the headers that say so (pure ASGI).

The headers are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.rates import Caller, Rate
from service.core.errors import InvalidRequest, RateLimited
from service.http.layers.authentication import BATCH, key_of
from service.http.problems import problem_response
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.access.limiter import Limiter

COUNTED = frozenset({"/v1/emotions", BATCH})


class Quota:
    """What one request spends of its caller's rate."""

    def __init__(self, limiter: Limiter, rate: Rate, policy: str, caller: Caller) -> None:
        self._limiter = limiter
        self._rate = rate
        self._policy = policy
        self._caller = caller
        self._state = ""

    async def spend(self, images: int) -> None:
        """Raises `RateLimited`, or `InvalidRequest` for more images than waiting could ever allow."""
        if images > self._rate.images:
            raise InvalidRequest(
                f"{images} more images are over the rate of {self._rate.images} in {self._rate.window_s} s, "
                "however long you wait; send fewer at a time"
            )
        spent = await self._limiter.spend(self._rate, self._caller, images)
        self._state = f'"{self._policy}";r={spent.left};t={spent.more_in_s}'
        if not spent.allowed:
            raise RateLimited(
                f"the rate is {self._rate.images} images in {self._rate.window_s} s, "
                f"of which {spent.left} are left",
                max(1, spent.more_in_s),
            )

    def describe(self, headers: MutableHeaders) -> None:
        """Write what is left where the caller reads it."""
        headers["RateLimit-Policy"] = f'"{self._policy}";q={self._rate.images};w={self._rate.window_s}'
        if self._state:
            headers["RateLimit"] = self._state


class Quotas:
    """Counts one image for each request before its body is read. Sets `scope["state"]["quota"]`.

    How many images a batch has is known only when it was read: its route spends the others.
    """

    def __init__(self, app: ASGIApp, limiter: Limiter, default: Rate | None, metrics: Metrics) -> None:
        self._app = app
        self._limiter = limiter
        self._default = default
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        quota = None
        if scope["type"] == "websocket":
            # Opening a stream costs nothing: its route spends one for each frame.
            scope["state"]["quota"] = self._quota(scope)
        elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in COUNTED:
            quota = self._quota(scope)
        if quota is None:
            await self._app(scope, receive, send)
            return

        async def limited_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                quota.describe(MutableHeaders(scope=message))
            await send(message)

        try:
            await quota.spend(1)
        except RateLimited as error:
            self._metrics.count_rejection(error)
            await problem_response(error, scope["state"]["request_id"])(scope, receive, limited_send)
            return
        scope["state"]["quota"] = quota
        await self._app(scope, receive, limited_send)

    def _quota(self, scope: Scope) -> Quota | None:
        key = key_of(scope)
        if key is not None and key.rate is not None:
            return Quota(self._limiter, key.rate, "key", Caller("key", key.name))
        if self._default is None:
            return None
        caller = Caller("key", key.name) if key is not None else Caller("address", address_of(scope))
        return Quota(self._limiter, self._default, "default", caller)


async def spend(scope: Scope, images: int) -> None:
    """What a request with so many images spends beyond the one that its head did. Raises as `Quota.spend`."""
    quota: Quota | None = scope["state"].get("quota")
    if quota is not None and images > 1:
        await quota.spend(images - 1)


def address_of(scope: Scope) -> str:
    """Whom an address stands for: of IPv6 a whole /64, since that is what one subscriber has."""
    client = scope.get("client")
    host: str = client[0] if client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False).network_address)
    return host
