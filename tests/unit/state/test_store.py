"""The store of jobs and sessions: in memory, in a supervisor, and in a real redis-server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.core.errors import StoreUnavailable
from service.serving import shared_store
from service.serving.link import LINE_BYTES, Link, line
from service.serving.shared_store import SharedStore, answer
from service.state import redis_store
from service.state.store import FIELD_BYTES, MemoryStore, Store, open_store
from tests.redis_server import Redis


@asynccontextmanager
async def supervised() -> AsyncIterator[tuple[Store, MemoryStore]]:
    """The store of a process, and that of its supervisor."""
    mine, supervisors = socket.socketpair()
    link, kept = Link(mine), MemoryStore()
    await link.open()
    reader, writer = await asyncio.open_connection(sock=supervisors, limit=LINE_BYTES)

    async def supervise() -> None:
        async for received in reader:
            message = json.loads(received)
            writer.write(line(number=message["number"], **await answer(kept, message["store"])))

    tasks = [asyncio.create_task(link.run()), asyncio.create_task(supervise())]
    yield SharedStore(link), kept
    for task in tasks:
        task.cancel()
    link.close()
    writer.close()


@pytest.fixture(params=["memory", "redis", "supervisor"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "supervisor":
        async with supervised() as (shared, _):
            yield shared
        return
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


async def test_large_values_pass(store: Store) -> None:
    value = bytes(range(256)) * 20_000
    await store.write("a", {"x": value}, 60)
    assert await store.read("a") == {"x": value}


async def test_a_process_learns_that_the_store_of_its_supervisor_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with supervised() as (shared, kept):
        monkeypatch.setattr(kept, "_max_bytes", 100)
        with pytest.raises(StoreUnavailable, match="full"):
            await shared.write("a", {"x": b"0" * 100}, 60)


async def test_a_supervisor_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_store, "ANSWER_S", 0.05)
    mine, supervisors = socket.socketpair()
    link = Link(mine)
    await link.open()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await SharedStore(link).read("a")
    link.close()
    supervisors.close()
