"""Rates that the supervisor counts, and the counts of the process when the supervisor does not answer."""

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
async def link_and_supervisor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Link, socket.socket]]:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    mine, supervisor = socket.socketpair()
    supervisor.setblocking(False)
    link = Link(mine)
    await link.open()
    running = asyncio.create_task(link.run())
    yield link, supervisor
    running.cancel()
    link.close()
    supervisor.close()


async def received(supervisor: socket.socket) -> dict[str, object]:
    """The last of the waiting messages."""
    lines = (await asyncio.get_running_loop().sock_recv(supervisor, 1000)).splitlines()
    message: dict[str, object] = json.loads(lines[-1])
    return message


async def test_the_answer_of_the_supervisor_is_used(link_and_supervisor: tuple[Link, socket.socket]) -> None:
    link, supervisor = link_and_supervisor
    spending = asyncio.create_task(link.spend(RATE, CALLER, 3))
    request = await received(supervisor)
    assert request["spend"] == [10, 86400, "key", "one", 3]
    supervisor.send(line(number=request["number"], spent=[False, 2, 5]))
    spent = await spending
    assert (spent.allowed, spent.remaining, spent.reset_s) == (False, 2, 5)


async def test_a_silent_supervisor_delays_no_request(link_and_supervisor: tuple[Link, socket.socket]) -> None:
    link, supervisor = link_and_supervisor
    with capture_logs() as lines:
        async with asyncio.timeout(10):
            assert [(await link.spend(RATE, CALLER, 4)).allowed for _ in range(3)] == [True, True, False]
        late = await received(supervisor)
        # An answer that comes too late changes nothing.
        supervisor.send(line(number=late["number"], spent=[True, 9, 5]))
        spending = asyncio.create_task(link.spend(RATE, CALLER, 4))
        request = await received(supervisor)
        supervisor.send(line(number=request["number"], spent=[True, 1, 5]))
        assert (await spending).remaining == 1
    assert [entry["event"] for entry in lines] == [
        "rates are counted by this process alone",
        "rates are counted over all processes",
    ]


async def test_a_dead_supervisor_delays_no_request(link_and_supervisor: tuple[Link, socket.socket]) -> None:
    link, supervisor = link_and_supervisor
    supervisor.close()
    async with asyncio.timeout(10):
        assert [(await link.spend(RATE, CALLER, 4)).allowed for _ in range(3)] == [True, True, False]
