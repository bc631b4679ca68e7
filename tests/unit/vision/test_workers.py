"""A thread that works on an image for too long is abandoned, and no caller waits for this thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from service.core.errors import HostBusy, ImageTooComplex
from service.vision import workers as module
from service.vision.workers import Workers


class Stuck:
    """Work that lasts until `may_end` is set."""

    def __init__(self) -> None:
        self.started, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.started.set()
        assert self.may_end.wait(30)
        return "late"


class Pool:
    def __init__(self, count: int, budget_s: float, ahead: int = 0) -> None:
        self.overruns = 0
        self.workers = Workers(count, budget_s=budget_s, overran=self._count, ahead=ahead)
        self.stuck: list[Stuck] = []

    def _count(self) -> None:
        self.overruns += 1

    async def process(self, work: Callable[[], object], *, multithreaded: bool = False) -> object:
        slot = await self.workers.acquire(multithreaded=multithreaded)
        try:
            return await slot.run(work)
        finally:
            slot.release()

    async def overrun(self) -> None:
        """Process an image that overruns its budget."""
        self.stuck.append(Stuck())
        with pytest.raises(HostBusy):
            await self.process(self.stuck[-1])

    async def close(self) -> None:
        for stuck in self.stuck:
            stuck.may_end.set()
        await self.workers.close()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(2, budget_s=0.2)
    pool.workers.start()
    yield pool
    await pool.close()


async def test_a_caller_gets_the_result_or_the_error_of_its_work(pool: Pool) -> None:
    assert await pool.process(lambda: "pixels") == "pixels"
    with pytest.raises(ZeroDivisionError):
        await pool.process(lambda: str(1 // 0))
    assert await pool.process(lambda: "pixels") == "pixels"
    assert pool.overruns == 0


async def test_a_slow_image_is_too_complex_only_if_it_had_a_core(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()

    def spin() -> str:
        while not may_end.is_set():
            pass
        return "late"

    # The machine of the tests may be busy.
    monkeypatch.setattr(module, "MIN_CPU_SHARE", 0.05)
    with pytest.raises(ImageTooComplex, match="to process; send a smaller image"):
        await pool.process(spin)
    monkeypatch.setattr(module, "MIN_CPU_SHARE", 2)
    with pytest.raises(HostBusy, match="the machine is busy"):
        await pool.process(spin)
    may_end.set()


async def test_threads_of_a_decoder_count_by_their_share_of_cpu_time(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spin() -> None:
        while not stuck.may_end.is_set():
            pass

    stuck = Stuck()
    pool.stuck.append(stuck)

    def work() -> str:
        helper = threading.Thread(target=spin)
        helper.start()
        helper.join()
        return "late"

    # The machine of the tests may be busy.
    monkeypatch.setattr(module, "MIN_CPU_SHARE", 0.05)
    with pytest.raises(ImageTooComplex):
        await pool.process(work, multithreaded=True)
    # The helper of the first image uses one core. Its CPU time counts for three images, so it is too little.
    monkeypatch.setattr(module, "MIN_CPU_SHARE", 0.6)
    answers = await asyncio.gather(
        *(pool.process(stuck, multithreaded=True) for _ in range(2)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [HostBusy, HostBusy]


async def test_a_thread_that_overruns_is_replaced(pool: Pool) -> None:
    await asyncio.gather(pool.overrun(), pool.overrun())
    assert pool.overruns == 2
    # Both first threads still work, and no image waits for them.
    answers = await asyncio.wait_for(asyncio.gather(*(pool.process(lambda: "ok") for _ in range(20))), 5)
    assert answers == ["ok"] * 20


async def test_no_more_threads_are_abandoned_than_the_pool_has(pool: Pool) -> None:
    before = threading.active_count()
    await asyncio.gather(*(pool.overrun() for _ in range(4)))
    assert pool.overruns == 4
    assert threading.active_count() == before + 2
    waiting = asyncio.create_task(pool.process(lambda: "at last"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    # The last two images keep their slots. A slot is free again once the thread ends its work.
    pool.stuck[-1].may_end.set()
    assert await asyncio.wait_for(waiting, 5) == "at last"


def vision_threads() -> int:
    return sum(thread.name == "vision" for thread in threading.enumerate())


async def test_slots_and_threads_are_freed(pool: Pool) -> None:
    before = vision_threads()
    for _ in range(3):
        await asyncio.gather(pool.overrun(), pool.overrun())
        for stuck in pool.stuck:
            stuck.may_end.set()
        answers = await asyncio.wait_for(asyncio.gather(*(pool.process(lambda: "ok") for _ in range(9))), 5)
        assert answers == ["ok"] * 9
    assert pool.overruns == 6
    # The last two abandoned threads may not have ended yet.
    assert vision_threads() <= before + 2


async def test_an_image_without_a_caller_keeps_its_slot_until_its_thread_is_free() -> None:
    pool = Pool(1, budget_s=20)
    pool.workers.start()
    stuck = Stuck()
    pool.stuck.append(stuck)
    cancelled = asyncio.create_task(pool.process(stuck))
    await asyncio.to_thread(stuck.started.wait)
    cancelled.cancel()
    next_image = asyncio.create_task(pool.process(lambda: "next"))
    await asyncio.sleep(0.1)
    assert not next_image.done()
    stuck.may_end.set()
    assert await asyncio.wait_for(next_image, 5) == "next"
    await pool.close()


async def test_an_image_without_a_caller_is_abandoned_after_its_budget() -> None:
    pool = Pool(1, budget_s=0.2)
    pool.workers.start()
    stuck = Stuck()
    pool.stuck.append(stuck)
    cancelled = asyncio.create_task(pool.process(stuck))
    await asyncio.to_thread(stuck.started.wait)
    cancelled.cancel()
    assert await asyncio.wait_for(pool.process(lambda: "next"), 5) == "next"
    assert pool.overruns == 1
    await pool.close()


async def test_a_thread_starts_the_next_image_while_the_event_loop_is_busy() -> None:
    pool = Pool(1, budget_s=20, ahead=1)
    pool.workers.start()
    begun, first = threading.Event(), Stuck()
    pool.stuck.append(first)
    first_image = asyncio.create_task(pool.process(first))
    await asyncio.to_thread(first.started.wait)
    second = asyncio.create_task(pool.process(begun.set))
    await asyncio.sleep(0.1)
    assert not begun.is_set()
    first.may_end.set()
    assert begun.wait(5), "the thread must not need the event loop, which is blocked here"
    assert await first_image == "late"
    await second
    await pool.close()


async def test_the_budget_begins_when_a_thread_starts_the_image() -> None:
    pool = Pool(1, budget_s=1.0, ahead=1)
    pool.workers.start()
    first, second = Stuck(), Stuck()
    pool.stuck += [first, second]
    both = [asyncio.create_task(pool.process(work)) for work in (first, second)]
    await asyncio.sleep(0.6)
    first.may_end.set()
    await asyncio.sleep(0.6)
    second.may_end.set()
    assert await asyncio.gather(*both) == ["late", "late"]
    assert pool.overruns == 0
    await pool.close()


async def test_an_image_without_a_caller_is_not_begun() -> None:
    pool = Pool(1, budget_s=20, ahead=1)
    pool.workers.start()
    first, second = Stuck(), Stuck()
    pool.stuck.append(first)
    first_image = asyncio.create_task(pool.process(first))
    cancelled = asyncio.create_task(pool.process(second))
    await asyncio.to_thread(first.started.wait)
    cancelled.cancel()
    await asyncio.sleep(0)
    first.may_end.set()
    assert await first_image == "late"
    assert await asyncio.wait_for(pool.process(lambda: "next"), 5) == "next"
    assert not second.started.is_set()
    await pool.close()


async def test_closing_does_not_wait_for_abandoned_threads() -> None:
    pool = Pool(1, budget_s=0.1)
    pool.workers.start()
    await pool.overrun()
    await asyncio.wait_for(pool.workers.close(), 5)
    assert not pool.stuck[0].may_end.is_set()
    pool.stuck[0].may_end.set()
