"""Where jobs and sessions keep what must outlive a request: hashes of bytes that expire."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from service.core.errors import StoreUnavailable

MAX_BYTES = 256 * 2**20
FIELD_BYTES = 100
"""What Python needs for a field beside its name and value."""


class Store(Protocol):
    """Hashes by key. A hash expires `ttl_s` seconds after the last `write` or `add`.

    Methods raise `StoreUnavailable` if the store is full or cannot be reached. A call that raises may have
    been done.
    """

    async def read(self, key: str) -> dict[str, bytes]:
        """All fields of the hash; empty if it is missing."""
        ...

    async def write(self, key: str, fields: Mapping[str, bytes], ttl_s: float) -> None:
        """Set these fields. The hash keeps its other fields, and is made if it is missing."""
        ...

    async def add(self, key: str, amounts: Mapping[str, int], ttl_s: float) -> bool:
        """Add to fields that hold decimal numbers, all at once. A missing field is 0.

        Returns False, and adds nothing, if the hash is missing: what was deleted does not come back.
        """
        ...

    async def delete(self, key: str) -> None: ...

    async def close(self) -> None: ...


def open_store(redis_url: str | None) -> Store:
    """A store in Redis, which several gateways share, or else in the memory of this process."""
    if redis_url is None:
        return MemoryStore()
    # Imported late: the import is slow, and most gateways have no Redis.
    from service.state.redis_store import RedisStore

    return RedisStore(redis_url)


@dataclass(slots=True)
class _Hash:
    expires_s: float  # by the clock of the event loop
    fields: dict[str, bytes] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(_size_bytes(name, value) for name, value in self.fields.items())


class MemoryStore:
    """A store in the memory of this process. At most `max_bytes` are kept; more are refused."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._hashes: dict[str, _Hash] = {}

    async def read(self, key: str) -> dict[str, bytes]:
        found = self._hashes.get(key)
        return {} if found is None else dict(found.fields)

    async def write(self, key: str, fields: Mapping[str, bytes], ttl_s: float) -> None:
        self._set(key, fields, ttl_s)

    async def add(self, key: str, amounts: Mapping[str, int], ttl_s: float) -> bool:
        found = self._hashes.get(key)
        if found is None:
            return False
        sums = {name: int(found.fields.get(name, 0)) + amount for name, amount in amounts.items()}
        self._set(key, {name: b"%d" % value for name, value in sums.items()}, ttl_s)
        return True

    async def delete(self, key: str) -> None:
        found = self._hashes.pop(key, None)
        if found is not None:
            self._bytes -= found.size_bytes

    async def close(self) -> None:
        self._hashes.clear()

    def _set(self, key: str, fields: Mapping[str, bytes], ttl_s: float) -> None:
        known = self._hashes.get(key)
        old = {} if known is None else known.fields
        more = sum(_size_bytes(name, value) for name, value in fields.items())
        more -= sum(_size_bytes(name, old[name]) for name in fields if name in old)
        if more > 0 and self._bytes + more > self._max_bytes:
            raise StoreUnavailable("the memory for jobs and sessions is full")
        self._bytes += more
        loop = asyncio.get_running_loop()
        if known is None:
            known = self._hashes[key] = _Hash(loop.time() + ttl_s)
            self._expire_at(known.expires_s, key, known)
        known.expires_s = loop.time() + ttl_s
        known.fields.update(fields)

    def _expire_at(self, when_s: float, key: str, held: _Hash) -> None:
        asyncio.get_running_loop().call_at(when_s, self._expire, key, held)

    def _expire(self, key: str, held: _Hash) -> None:
        """Delete the hash, unless it has been renewed or replaced."""
        if self._hashes.get(key) is not held:
            return
        if held.expires_s > asyncio.get_running_loop().time():
            self._expire_at(held.expires_s, key, held)
        else:
            del self._hashes[key]
            self._bytes -= held.size_bytes


def _size_bytes(name: str, value: bytes) -> int:
    return len(name) + len(value) + FIELD_BYTES
