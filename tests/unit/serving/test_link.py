"""Rates that the supervisor counts, and what happens when it does not."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from service.access.rates import Caller, Rate
from service.serving import link as module
from service.serving.link import Link, line

RATE, CALLER = Rate(10, 86400), Caller("key", "one")


@pytest.fixture
async def ends(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Link, socket.socket]]:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    mine, other = socket.socketpair()
    other.setblocking(False)
    link = Link(mine)
    await link.open()
    running = asyncio.create_task(link.run())
    yield link, other
    running.cancel()
    link.close()
    other.close()


async def heard(other: socket.socket) -> dict[str, object]:
    """The last of the messages that wait."""
    lines = (await asyncio.get_running_loop().sock_recv(other, 1000)).splitlines()
    message: dict[str, object] = json.loads(lines[-1])
    return message


async def test_the_supervisor_is_asked_and_believed(ends: tuple[Link, socket.socket]) -> None:
    link, other = ends
    spending = asyncio.create_task(link.spend(RATE, CALLER, 3))
    asked = await heard(other)
    assert asked["spend"] == [10, 86400, "key", "one", 3]
    other.send(line(number=asked["number"], spent=[False, 2, 5]))
    spent = await spending
    assert (spent.allowed, spent.remaining, spent.reset_s) == (False, 2, 5)


async def test_a_mute_supervisor_keeps_nobody_waiting(ends: tuple[Link, socket.socket]) -> None:
    link, other = ends
    with capture_logs() as lines:
        async with asyncio.timeout(10):
            assert [(await link.spend(RATE, CALLER, 4)).allowed for _ in range(3)] == [True, True, False]
        late = await heard(other)
        # An answer that comes too late changes nothing.
        other.send(line(number=late["number"], spent=[True, 9, 5]))
        spending = asyncio.create_task(link.spend(RATE, CALLER, 4))
        asked = await heard(other)
        other.send(line(number=asked["number"], spent=[True, 1, 5]))
        assert (await spending).remaining == 1
    assert [entry["event"] for entry in lines] == [
        "rates are counted by this process alone",
        "rates are counted over all processes",
    ]


async def test_a_dead_supervisor_keeps_nobody_waiting(ends: tuple[Link, socket.socket]) -> None:
    link, other = ends
    other.close()
    async with asyncio.timeout(10):
        assert [(await link.spend(RATE, CALLER, 4)).allowed for _ in range(3)] == [True, True, False]
