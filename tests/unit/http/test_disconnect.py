"""A client that disconnects cancels its work, and no task remains."""

from __future__ import annotations

import asyncio

import pytest

from service.core.errors import InvalidImage
from service.http.disconnect import ClientDisconnected, race_disconnect


class Work:
    """Work that runs until `finish` is set, and that needs a turn of the event loop to clean up."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.state = "not begun"

    async def run(self, error: Exception | None = None) -> str:
        self.state = "begun"
        try:
            await self.finish.wait()
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


async def remaining_tasks() -> set[asyncio.Task[object]]:
    """The other tasks that still run after the event loop has settled."""
    await settle()
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def client() -> asyncio.Future[None]:
    """A future that is done when the client disconnects."""
    return asyncio.get_running_loop().create_future()


async def test_work_of_a_connected_client_is_answered() -> None:
    work = Work()
    work.finish.set()
    assert await race_disconnect(client(), work.run()) == "answer"
    assert not await remaining_tasks()


async def test_errors_of_the_work_are_raised() -> None:
    work = Work()
    work.finish.set()
    with pytest.raises(InvalidImage, match="broken"):
        await race_disconnect(client(), work.run(InvalidImage("broken")))
    assert not await remaining_tasks()


@pytest.mark.parametrize("before", [True, False], ids=["before the work begins", "meanwhile"])
async def test_a_disconnect_cancels_the_work(before: bool) -> None:
    disconnected, work = client(), Work()
    race = asyncio.create_task(race_disconnect(disconnected, work.run()))
    if not before:
        await settle()
        assert work.state == "begun"
    disconnected.set_result(None)
    with pytest.raises(ClientDisconnected):
        await race
    assert work.state == "cancelled and tidied up"
    assert not await remaining_tasks()


async def test_a_ready_answer_wins_over_a_disconnect() -> None:
    disconnected, work = client(), Work()
    race = asyncio.create_task(race_disconnect(disconnected, work.run()))
    await settle()
    work.finish.set()
    disconnected.set_result(None)
    assert await race == "answer"
    assert not await remaining_tasks()


async def test_code_after_the_answer_is_not_cancelled() -> None:
    disconnected = client()

    async def answer_and_disconnect() -> str:
        disconnected.set_result(None)
        return "answer"

    async def request() -> str:
        answer = await race_disconnect(disconnected, answer_and_disconnect())
        await settle()
        return answer

    assert await asyncio.create_task(request()) == "answer"


async def test_a_cancelled_request_cancels_its_work() -> None:
    work = Work()
    race = asyncio.create_task(race_disconnect(client(), work.run()))
    await settle()
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert work.state == "cancelled and tidied up"
    assert not await remaining_tasks()


async def test_a_cancelled_request_stays_cancelled_after_a_disconnect() -> None:
    disconnected, work = client(), Work()
    race = asyncio.create_task(race_disconnect(disconnected, work.run()))
    await settle()
    disconnected.set_result(None)
    await asyncio.sleep(0)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race


async def test_work_is_answered_if_a_disconnect_cannot_be_detected() -> None:
    work = Work()
    work.finish.set()
    assert await race_disconnect(None, work.run()) == "answer"
