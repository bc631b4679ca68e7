"""Counts what callers spend of their rates: in memory, or in Redis for several gateways."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Protocol

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.access.rates import Caller, Rate, Spent
from service.telemetry.logs import log

REDIS_TIMEOUT_S = 0.1
# Nobody waits for this one, and a connection with TLS takes its time.
CONNECT_TIMEOUT_S = 2.0
RETRY_INTERVAL_S = 1.0
# One does some thousand requests in a second.
CONNECTIONS = 2
SWEEP_INTERVAL_S = 60.0
# Of more addresses than this, some share a count: a crowd must not grow the memory.
ADDRESSES = 65536


class Counts(Protocol):
    """Who counts where there is no Redis: this process, or the supervisor for all processes."""

    async def spend(self, rate: Rate, caller: Caller, images: int) -> Spent:
        """Nothing is spent if it would be too much."""

    async def run(self) -> None:
        """What happens behind the requests, for ever."""


class Memory:
    """Counts of this process."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._windows = SlidingWindowCounterRateLimiter(self._storage)

    async def spend(self, rate: Rate, caller: Caller, images: int) -> Spent:
        # Python's hash is another in each process, so that nobody can choose whose count to share.
        name = str(hash(caller.name) % ADDRESSES) if caller.kind == "address" else caller.name
        return await _spend(self._windows, rate, caller.kind, name, images)

    async def run(self) -> None:
        """Forget old counts."""
        # The library would walk over all callers at each request, if no such walk were under way: this is it.
        self._storage.timer = asyncio.current_task()
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            for number, key in enumerate(list(self._storage.expirations)):
                await self._storage.get(key)
                if number % 1000 == 0:
                    await asyncio.sleep(0)


class Limiter:
    """A sliding window for each caller: two counts, however large the rate is.

    Redis is asked for 0.1 s at most, on connections that are there already. While it is away nobody waits for
    it: each gateway counts `here`, and a task looks for it every second.
    """

    def __init__(self, redis_url: str | None, store_up: Callable[[bool], object], here: Counts) -> None:
        self._store_up = store_up
        self._here = here
        self._redis: Redis | None = None
        if redis_url is not None:
            self._redis = Redis.from_pool(
                BlockingConnectionPool.from_url(
                    redis_url,
                    max_connections=CONNECTIONS,
                    timeout=REDIS_TIMEOUT_S,
                    retry=Retry(NoBackoff(), 0),
                )
            )
            storage = RedisStorage(
                f"async+{redis_url}",
                implementation="redispy",
                key_prefix="expressnet",
                connection_pool=self._redis.connection_pool,  # type: ignore[arg-type]
            )
            self._there = SlidingWindowCounterRateLimiter(storage)
        self._away = asyncio.Event()
        self._away.set()
        self._told: bool | None = None

    async def spend(self, rate: Rate, caller: Caller, images: int) -> Spent:
        """Nothing is spent where it would be too much."""
        if self._redis is not None and not self._away.is_set():
            try:
                async with asyncio.timeout(REDIS_TIMEOUT_S):
                    return await _spend(self._there, rate, caller.kind, caller.name, images)
            except Exception as error:
                # Whatever it is that went wrong there, the request is not to blame.
                self._lost(error)
        return await self._here.spend(rate, caller, images)

    def _lost(self, error: Exception) -> None:
        self._away.set()
        if self._told is not False:
            self._told = False
            self._store_up(False)
            log.warning("rates are counted here alone", error=type(error).__name__)

    def _found(self) -> None:
        self._away.clear()
        if self._told is not True:
            self._told = True
            self._store_up(True)
            log.info("rates are counted together")

    async def connect(self) -> None:
        """Look for Redis, once."""
        if self._redis is None:
            return
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                # At once, so that each of the pool's connections is made.
                pings = [self._redis.ping() for _ in range(CONNECTIONS)]
                await asyncio.gather(*pings)  # type: ignore[arg-type]
        except Exception as error:
            self._lost(error)
        else:
            self._found()

    async def run(self) -> None:
        """What happens behind the requests, for ever."""
        await asyncio.gather(self._here.run(), self._look())

    async def _look(self) -> None:
        while self._redis is not None:
            await self._away.wait()
            await asyncio.sleep(RETRY_INTERVAL_S)
            await self.connect()

    async def close(self) -> None:
        if self._redis is not None:
            with contextlib.suppress(Exception):
                await self._redis.aclose()


async def _spend(
    limiter: SlidingWindowCounterRateLimiter, rate: Rate, kind: str, name: str, images: int
) -> Spent:
    item = RateLimitItemPerSecond(rate.images, rate.window_s)
    allowed = await limiter.hit(item, kind, name, cost=images)
    stats = await limiter.get_window_stats(item, kind, name)
    return Spent(allowed, stats.remaining, max(0, math.ceil(stats.reset_time - time.time())))
