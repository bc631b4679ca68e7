"""The store of jobs and sessions: in memory, and in a real redis-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.core.errors import StoreUnavailable
from service.state import redis_store
from service.state.store import FIELD_BYTES, MemoryStore, Store, open_store
from tests.redis_server import Redis


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    url = None
    if request.param == "redis":
        server: Redis = request.getfixturevalue("redis")
        server.start()
        url = server.url
    store = open_store(url)
    yield store
    await store.close()


async def expires(store: Store, key: str) -> None:
    async with asyncio.timeout(10):
        while await store.read(key):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_fields_are_written_added_and_deleted(store: Store) -> None:
    assert await store.read("a") == {}
    await store.write("a", {"x": b"\x00\xff", "y": b"1"}, 60)
    await store.write("a", {"y": b"2"}, 60)
    await store.write("b", {"x": b"other"}, 60)
    assert await store.add("a", {"y": 3, "z": -1}, 60)
    assert await store.read("a") == {"x": b"\x00\xff", "y": b"5", "z": b"-1"}
    await store.delete("a")
    await store.delete("a")
    assert await store.read("a") == {}
    assert await store.read("b") == {"x": b"other"}


async def test_what_was_deleted_is_not_counted_again(store: Store) -> None:
    assert not await store.add("a", {"x": 1}, 60)
    assert await store.read("a") == {}


async def test_no_addition_is_lost_among_many(store: Store) -> None:
    await store.write("a", {"made": b"1"}, 60)
    await asyncio.gather(*(store.add("a", {"x": 1, f"y{number % 3}": 2}, 60) for number in range(99)))
    assert await store.read("a") == {"made": b"1", "x": b"99", "y0": b"66", "y1": b"66", "y2": b"66"}


async def test_a_hash_expires_unless_it_is_renewed(store: Store) -> None:
    await store.write("short", {"x": b"1"}, 0.05)
    await store.write("renewed", {"x": b"1"}, 0.05)
    await store.add("renewed", {"x": 1}, 60)
    await expires(store, "short")
    assert await store.read("renewed") == {"x": b"2"}


async def test_a_hash_that_is_made_again_does_not_expire_with_the_first(store: Store) -> None:
    await store.write("a", {"x": b"1"}, 0.05)
    await store.delete("a")
    await store.write("a", {"x": b"2"}, 60)
    await store.write("b", {"x": b"1"}, 0.1)
    await expires(store, "b")
    assert await store.read("a") == {"x": b"2"}


async def test_memory_is_bounded() -> None:
    store = MemoryStore(max_bytes=2 * (FIELD_BYTES + 11))
    await store.write("a", {"x": b"0" * 10}, 60)
    await store.write("b", {"x": b"0" * 10}, 0.1)
    with pytest.raises(StoreUnavailable, match="full"):
        await store.add("a", {"y": 1}, 60)
    # What is kept can still be replaced, and what has expired or was deleted makes room.
    await store.write("a", {"x": b"1" * 10}, 60)
    await expires(store, "b")
    await store.add("a", {"y": 1}, 60)
    await store.delete("a")
    await store.write("b", {"x": b"0" * 100}, 60)


async def test_redis_that_stops_is_reported_and_used_again(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "TIMEOUT_S", 0.5)
    store = open_store(redis.url)
    for attempt in range(2):
        redis.start()
        assert not await store.add("a", {"x": 1}, 60)
        await store.write("a", {"x": b"%d" % attempt}, 60)
        redis.pause()
        with pytest.raises(StoreUnavailable):
            await store.read("a")
        redis.resume()
        assert await store.read("a") == {"x": b"%d" % attempt}
        redis.kill()
        for failing in (
            store.read("a"),
            store.add("a", {"x": 1}, 60),
            store.delete("a"),
            store.write("a", {"x": b"1"}, 60),
        ):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await failing
    await store.close()
