"""A client that hangs up cancels its work, and nothing of it stays behind."""

from __future__ import annotations

import asyncio

import pytest

from service.core.errors import InvalidImage
from service.http.disconnect import ClientDisconnected, race_disconnect


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


def client() -> asyncio.Future[None]:
    """Done once it has left."""
    return asyncio.get_running_loop().create_future()


async def test_work_of_a_patient_client_is_answered() -> None:
    work = Work()
    work.go_on.set()
    assert await race_disconnect(client(), work.run()) == "answer"
    assert not await others()


async def test_errors_of_the_work_come_out() -> None:
    work = Work()
    work.go_on.set()
    with pytest.raises(InvalidImage, match="broken"):
        await race_disconnect(client(), work.run(InvalidImage("broken")))
    assert not await others()


@pytest.mark.parametrize("before", [True, False], ids=["before the work begins", "meanwhile"])
async def test_a_client_that_leaves_cancels_the_work(before: bool) -> None:
    left, work = client(), Work()
    race = asyncio.create_task(race_disconnect(left, work.run()))
    if not before:
        await settle()
        assert work.state == "begun"
    left.set_result(None)
    with pytest.raises(ClientDisconnected):
        await race
    assert work.state == "cancelled and tidied up"
    assert not await others()


async def test_an_answer_that_is_ready_wins_over_a_client_that_leaves() -> None:
    left, work = client(), Work()
    race = asyncio.create_task(race_disconnect(left, work.run()))
    await settle()
    work.go_on.set()
    left.set_result(None)
    assert await race == "answer"
    assert not await others()


async def test_what_comes_after_the_answer_is_not_cancelled() -> None:
    left = client()

    async def answered_as_the_client_leaves() -> str:
        left.set_result(None)
        return "answer"

    async def request() -> str:
        answer = await race_disconnect(left, answered_as_the_client_leaves())
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
    assert not await others()


async def test_a_cancelled_request_stays_cancelled_though_its_client_has_left() -> None:
    left, work = client(), Work()
    race = asyncio.create_task(race_disconnect(left, work.run()))
    await settle()
    left.set_result(None)
    await asyncio.sleep(0)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race


async def test_where_nobody_can_tell_the_work_goes_on() -> None:
    work = Work()
    work.go_on.set()
    assert await race_disconnect(None, work.run()) == "answer"
