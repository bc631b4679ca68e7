"""A client that hangs up cancels its work, and nothing of it stays behind."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from service.errors import InvalidImage
from service.http.disconnect import ClientDisconnected, race_disconnect


class Client:
    """An ASGI `receive` that yields what the client does."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.waiting = 0

    async def receive(self) -> Message:
        self.waiting += 1
        try:
            message = await self.messages.get()
        finally:
            self.waiting -= 1
        if isinstance(message, Exception):
            raise message
        return message

    def says(self, kind: str) -> None:
        self.messages.put_nowait({"type": kind})


class Work:
    """Work that runs until it is told to end, and takes its time to tidy up."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.state = "not begun"

    async def run(self, error: Exception | None = None) -> str:
        self.state = "begun"
        try:
            await self.go_on.wait()
            if error:
                raise error
            self.state = "done"
            return "answer"
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.state = "cancelled and tidied up"
            raise


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def others() -> set[asyncio.Task[object]]:
    """What still runs once all that is over has ended."""
    await settle()
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_work_of_a_patient_client_is_answered() -> None:
    client, work = Client(), Work()
    work.go_on.set()
    assert await race_disconnect(client.receive, work.run()) == "answer"
    assert not await others()
    assert client.waiting == 0


async def test_errors_of_the_work_come_out() -> None:
    client, work = Client(), Work()
    work.go_on.set()
    with pytest.raises(InvalidImage, match="broken"):
        await race_disconnect(client.receive, work.run(InvalidImage("broken")))
    assert not await others()


async def test_a_client_that_leaves_cancels_the_work() -> None:
    client, work = Client(), Work()
    race = asyncio.create_task(race_disconnect(client.receive, work.run()))
    await settle()
    assert work.state == "begun"
    client.says("http.disconnect")
    with pytest.raises(ClientDisconnected):
        await race
    assert work.state == "cancelled and tidied up"
    assert not await others()


async def test_only_the_disconnect_counts_as_leaving() -> None:
    client, work = Client(), Work()
    race = asyncio.create_task(race_disconnect(client.receive, work.run()))
    client.says("http.request")
    await settle()
    assert not race.done()
    work.go_on.set()
    assert await race == "answer"


async def test_an_answer_that_is_ready_wins_over_a_disconnect() -> None:
    client, work = Client(), Work()
    race = asyncio.create_task(race_disconnect(client.receive, work.run()))
    await settle()
    work.go_on.set()
    client.says("http.disconnect")
    assert await race == "answer"
    assert not await others()


async def test_a_cancelled_request_cancels_its_work() -> None:
    client, work = Client(), Work()
    race = asyncio.create_task(race_disconnect(client.receive, work.run()))
    await settle()
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert work.state == "cancelled and tidied up"
    assert not await others()
    assert client.waiting == 0


async def test_a_broken_connection_counts_as_leaving() -> None:
    client, work = Client(), Work()
    race = asyncio.create_task(race_disconnect(client.receive, work.run()))
    await settle()
    client.messages.put_nowait(OSError("connection reset"))
    with pytest.raises(ClientDisconnected):
        await race
    assert work.state == "cancelled and tidied up"
