"""Threads that are given up, and that never leave anybody waiting for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from service.core.errors import HostBusy, ImageTooComplex
from service.vision import workers as module
from service.vision.workers import Workers


class Stuck:
    """Work that goes on until it is let go."""

    def __init__(self) -> None:
        self.started, self.let_go = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.started.set()
        assert self.let_go.wait(30)
        return "late"


class Pool:
    def __init__(self, count: int, budget_s: float, ahead: int = 0) -> None:
        self.overruns = 0
        self.workers = Workers(count, budget_s=budget_s, overran=self._count, ahead=ahead)
        self.stuck: list[Stuck] = []

    def _count(self) -> None:
        self.overruns += 1

    async def image(self, work: Callable[[], object], *, multithreaded: bool = False) -> object:
        place = await self.workers.acquire(multithreaded=multithreaded)
        try:
            return await place.run(work)
        finally:
            place.release()

    async def hang(self) -> None:
        """An image that overruns its budget."""
        self.stuck.append(Stuck())
        with pytest.raises(HostBusy):
            await self.image(self.stuck[-1])

    async def close(self) -> None:
        for stuck in self.stuck:
            stuck.let_go.set()
        await self.workers.close()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(2, budget_s=0.2)
    pool.workers.start()
    yield pool
    await pool.close()


async def test_what_the_work_returns_or_raises_comes_back(pool: Pool) -> None:
    assert await pool.image(lambda: "pixels") == "pixels"
    with pytest.raises(ZeroDivisionError):
        await pool.image(lambda: str(1 // 0))
    assert await pool.image(lambda: "pixels") == "pixels"
    assert pool.overruns == 0


async def test_what_takes_long_is_the_image_s_fault_only_if_it_had_a_core(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()

    def spin() -> str:
        while not let_go.is_set():
            pass
        return "late"

    # The machine of the tests may be busy.
    monkeypatch.setattr(module, "MIN_CPU_SHARE", 0.05)
    with pytest.raises(ImageTooComplex, match="to process; send a smaller image"):
        await pool.image(spin)
    monkeypatch.setattr(module, "MIN_CPU_SHARE", 2)
    with pytest.raises(HostBusy, match="the machine is busy"):
        await pool.image(spin)
    let_go.set()


async def test_threads_of_the_work_itself_count_with_their_share(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spin() -> None:
        while not other.let_go.is_set():
            pass

    other = Stuck()
    pool.stuck.append(other)

    def work() -> str:
        helper = threading.Thread(target=spin)
        helper.start()
        helper.join()
        return "late"

    # The machine of the tests may be busy.
    monkeypatch.setattr(module, "MIN_CPU_SHARE", 0.05)
    with pytest.raises(ImageTooComplex):
        await pool.image(work, multithreaded=True)
    # The helper's core counts for it, and for two more that get none.
    monkeypatch.setattr(module, "MIN_CPU_SHARE", 0.6)
    answers = await asyncio.gather(
        *(pool.image(other, multithreaded=True) for _ in range(2)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [HostBusy, HostBusy]


async def test_a_thread_that_overruns_is_replaced(pool: Pool) -> None:
    await asyncio.gather(pool.hang(), pool.hang())
    assert pool.overruns == 2
    # Both of the first threads are still at work, and nobody waits for them.
    answers = await asyncio.wait_for(asyncio.gather(*(pool.image(lambda: "ok") for _ in range(20))), 5)
    assert answers == ["ok"] * 20


async def test_no_more_are_abandoned_than_there_are_threads(pool: Pool) -> None:
    before = threading.active_count()
    await asyncio.gather(*(pool.hang() for _ in range(4)))
    assert pool.overruns == 4
    assert threading.active_count() == before + 2
    waiting = asyncio.create_task(pool.image(lambda: "at last"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    # The last two kept their places: one that comes back frees its own.
    pool.stuck[-1].let_go.set()
    assert await asyncio.wait_for(waiting, 5) == "at last"


def vision_threads() -> int:
    return sum(thread.name == "vision" for thread in threading.enumerate())


async def test_places_and_threads_come_back(pool: Pool) -> None:
    before = vision_threads()
    for _ in range(3):
        await asyncio.gather(pool.hang(), pool.hang())
        for stuck in pool.stuck:
            stuck.let_go.set()
        answers = await asyncio.wait_for(asyncio.gather(*(pool.image(lambda: "ok") for _ in range(9))), 5)
        assert answers == ["ok"] * 9
    assert pool.overruns == 6
    # The last two that came back may not have ended yet.
    assert vision_threads() <= before + 2


async def test_an_image_that_nobody_waits_for_keeps_its_place_until_its_thread_is_free() -> None:
    pool = Pool(1, budget_s=20)
    pool.workers.start()
    stuck = Stuck()
    pool.stuck.append(stuck)
    leaving = asyncio.create_task(pool.image(stuck))
    await asyncio.to_thread(stuck.started.wait)
    leaving.cancel()
    next_one = asyncio.create_task(pool.image(lambda: "next"))
    await asyncio.sleep(0.1)
    assert not next_one.done()
    stuck.let_go.set()
    assert await asyncio.wait_for(next_one, 5) == "next"
    await pool.close()


async def test_an_image_that_nobody_waits_for_is_abandoned_at_its_budget() -> None:
    pool = Pool(1, budget_s=0.2)
    pool.workers.start()
    stuck = Stuck()
    pool.stuck.append(stuck)
    leaving = asyncio.create_task(pool.image(stuck))
    await asyncio.to_thread(stuck.started.wait)
    leaving.cancel()
    assert await asyncio.wait_for(pool.image(lambda: "next"), 5) == "next"
    assert pool.overruns == 1
    await pool.close()


async def test_a_thread_finds_the_next_image_while_the_event_loop_is_busy() -> None:
    pool = Pool(1, budget_s=20, ahead=1)
    pool.workers.start()
    begun, first = threading.Event(), Stuck()
    pool.stuck.append(first)
    holding = asyncio.create_task(pool.image(first))
    await asyncio.to_thread(first.started.wait)
    second = asyncio.create_task(pool.image(begun.set))
    await asyncio.sleep(0.1)
    assert not begun.is_set()
    first.let_go.set()
    assert begun.wait(5), "the loop, which waits here, had to help"
    assert await holding == "late"
    await second
    await pool.close()


async def test_the_budget_begins_when_a_thread_does() -> None:
    pool = Pool(1, budget_s=1.0, ahead=1)
    pool.workers.start()
    first, second = Stuck(), Stuck()
    pool.stuck += [first, second]
    both = [asyncio.create_task(pool.image(work)) for work in (first, second)]
    await asyncio.sleep(0.6)
    first.let_go.set()
    await asyncio.sleep(0.6)
    second.let_go.set()
    assert await asyncio.gather(*both) == ["late", "late"]
    assert pool.overruns == 0
    await pool.close()


async def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    pool = Pool(1, budget_s=20, ahead=1)
    pool.workers.start()
    first, second = Stuck(), Stuck()
    pool.stuck.append(first)
    holding = asyncio.create_task(pool.image(first))
    leaving = asyncio.create_task(pool.image(second))
    await asyncio.to_thread(first.started.wait)
    leaving.cancel()
    await asyncio.sleep(0)
    first.let_go.set()
    assert await holding == "late"
    assert await asyncio.wait_for(pool.image(lambda: "next"), 5) == "next"
    assert not second.started.is_set()
    await pool.close()


async def test_closing_does_not_wait_for_what_was_abandoned() -> None:
    pool = Pool(1, budget_s=0.1)
    pool.workers.start()
    await pool.hang()
    await asyncio.wait_for(pool.workers.close(), 5)
    assert not pool.stuck[0].let_go.is_set()
    pool.stuck[0].let_go.set()
