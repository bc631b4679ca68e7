"""The store of jobs and sessions in Redis, for several gateways."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.core.errors import StoreUnavailable
from service.telemetry.logs import log

PREFIX = "expressnet:state:"
# Results of a recording have megabytes, and a new connection with TLS takes long.
TIMEOUT_S = 2.0
CONNECTIONS = 4

# HINCRBY alone would make a deleted hash again.
ADD = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 2, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""


class RedisStore:
    """Nothing is tried again: an addition whose answer is lost may have been counted."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url, max_connections=CONNECTIONS, timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
            )
        )
        self._add = self._redis.register_script(ADD)

    async def read(self, key: str) -> dict[str, bytes]:
        async with _bounded():
            found = await self._redis.hgetall(PREFIX + key)  # type: ignore[misc]
        return {name.decode(): value for name, value in found.items()}

    async def write(self, key: str, fields: Mapping[str, bytes], ttl_s: float) -> None:
        async with _bounded(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(PREFIX + key, mapping=dict(fields))
            pipeline.pexpire(PREFIX + key, _ms(ttl_s))
            await pipeline.execute()

    async def add(self, key: str, amounts: Mapping[str, int], ttl_s: float) -> bool:
        pairs = [part for pair in amounts.items() for part in pair]
        async with _bounded():
            return bool(await self._add(keys=[PREFIX + key], args=[_ms(ttl_s), *pairs]))

    async def delete(self, key: str) -> None:
        async with _bounded():
            await self._redis.unlink(PREFIX + key)

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self._redis.aclose()


@contextlib.asynccontextmanager
async def _bounded() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    except (RedisError, OSError) as error:  # a TimeoutError is an OSError
        log.warning("the store of jobs and sessions does not answer", error=type(error).__name__)
        raise StoreUnavailable("the store of jobs and sessions does not answer") from error


def _ms(ttl_s: float) -> int:
    return max(1, round(ttl_s * 1000))
