"""Counts what callers spend of their rates, in Redis for several gateways."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.access.rates import Caller, Rate, Spent

TIMEOUT_S = 0.1
# No request waits for a connection, and a connection with TLS takes long.
CONNECT_TIMEOUT_S = 2.0
# One connection serves some thousand requests per second.
CONNECTIONS = 2


class RedisCounts:
    """The sliding windows of the `limits` library. Methods raise the errors of Redis."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url, max_connections=CONNECTIONS, timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
            )
        )
        storage = RedisStorage(
            f"async+{url}",
            implementation="redispy",
            key_prefix="expressnet",
            connection_pool=self._redis.connection_pool,  # type: ignore[arg-type]
        )
        self._windows = SlidingWindowCounterRateLimiter(storage)

    async def spend(self, rate: Rate, caller: Caller, images: int) -> Spent:
        """Spend the images if all of them are within the rate, else none."""
        item = RateLimitItemPerSecond(rate.images, rate.window_s)
        async with asyncio.timeout(TIMEOUT_S):
            allowed = await self._windows.hit(item, caller.kind, caller.name, cost=images)
            stats = await self._windows.get_window_stats(item, caller.kind, caller.name)
        return Spent(allowed, stats.remaining, max(0, math.ceil(stats.reset_time - time.time())))

    async def connect(self) -> None:
        """Make all connections of the pool."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            pings = [self._redis.ping() for _ in range(CONNECTIONS)]
            await asyncio.gather(*pings)  # type: ignore[arg-type]

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self._redis.aclose()
