"""Counts what callers spend of their rates: in Redis over all gateways, or in this gateway alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.access.counts import Counts
from service.access.rates import Caller, Rate, Spent
from service.telemetry.logs import log

RETRY_INTERVAL_S = 1.0


class Limiter:
    """Counts in Redis. While Redis is down, `fallback` counts without delay and a task reconnects.

    store_up: called with whether Redis answers, at each change.
    """

    def __init__(self, redis_url: str | None, store_up: Callable[[bool], object], fallback: Counts) -> None:
        self._fallback = fallback
        self._store_up = store_up
        self._redis = None
        if redis_url is not None:
            # Imported late: the import is slow, and most gateways have no Redis.
            from service.access.redis_counts import RedisCounts

            self._redis = RedisCounts(redis_url)
        self._redis_down = asyncio.Event()
        self._redis_down.set()
        self._reported_up: bool | None = None

    async def spend(self, rate: Rate, caller: Caller, images: int) -> Spent:
        """Spend the images if all of them are within the rate, else none."""
        if self._redis is not None and not self._redis_down.is_set():
            try:
                return await self._redis.spend(rate, caller, images)
            except Exception as error:
                # No error of Redis may fail the request.
                self._mark_down(error)
        return await self._fallback.spend(rate, caller, images)

    def _mark_down(self, error: Exception) -> None:
        self._redis_down.set()
        if self._reported_up is not False:
            self._reported_up = False
            self._store_up(False)
            log.warning("rates are counted by this gateway alone", error=type(error).__name__)

    def _mark_up(self) -> None:
        self._redis_down.clear()
        if self._reported_up is not True:
            self._reported_up = True
            self._store_up(True)
            log.info("rates are counted over all gateways")

    async def connect(self) -> None:
        """Try to reach Redis, once."""
        if self._redis is None:
            return
        try:
            await self._redis.connect()
        except Exception as error:
            self._mark_down(error)
        else:
            self._mark_up()

    async def run(self) -> None:
        """Reconnect to Redis whenever it is down, for ever."""
        while self._redis is not None:
            await self._redis_down.wait()
            await asyncio.sleep(RETRY_INTERVAL_S)
            await self.connect()

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.close()
