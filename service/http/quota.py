"""What one request spends of its caller's rate, and the headers with the remaining images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.access.rates import Caller, Rate
from service.core.errors import InvalidRequest, RateLimited

if TYPE_CHECKING:
    from service.access.limiter import Limiter


class Quota:
    """What one request spends of its caller's rate."""

    def __init__(self, limiter: Limiter, rate: Rate, policy: str, caller: Caller) -> None:
        self._limiter = limiter
        self._rate = rate
        self._policy = policy
        self._caller = caller
        self.headers = {"RateLimit-Policy": f'"{policy}";q={rate.images};w={rate.window_s}'}
        """Headers of the answer, by draft-ietf-httpapi-ratelimit-headers-10."""

    async def spend(self, images: int, before: int = 0) -> None:
        """Spend `images` more. before: images that this request has spent already.

        Raises `RateLimited`, or `InvalidRequest` if the request alone exceeds the rate.
        """
        total = before + images
        if total > self._rate.images:
            raise InvalidRequest(
                f"{total} images exceed the rate of {self._rate.images} images in {self._rate.window_s} s; "
                "send smaller batches"
            )
        spent = await self._limiter.spend(self._rate, self._caller, images)
        self.headers["RateLimit"] = f'"{self._policy}";r={spent.remaining};t={spent.reset_s}'
        if not spent.allowed:
            raise RateLimited(
                f"the rate is {self._rate.images} images in {self._rate.window_s} s; "
                f"{spent.remaining} are left",
                max(1, spent.reset_s),
            )
