"""When frames of recordings get their turns beside photos."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from service.core.backlog import Backlog
from service.pipeline import spare_time
from service.pipeline.spare_time import CALM_FRAMES, SpareTime

WORKERS = 2


class Frames:
    """Frames that wait for turns, and are at work until `end_one`."""

    def __init__(self) -> None:
        self.backlog = Backlog(WORKERS, 8)
        self.spare_time = SpareTime(self.backlog, WORKERS)
        self.begun = 0
        self._may_end = asyncio.Semaphore(0)

    async def work(self) -> None:
        async with self.spare_time.turn():
            with self.backlog.image():
                self.begun += 1
                await self._may_end.acquire()

    async def end_one(self) -> None:
        self._may_end.release()
        await settled()

    @asynccontextmanager
    async def waiting(self, count: int) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.work()) for _ in range(count)]
        await settled()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def frames() -> Frames:
    return Frames()


async def test_without_photos_every_worker_has_some_frames(frames: Frames) -> None:
    async with frames.waiting(20):
        assert frames.begun == CALM_FRAMES * WORKERS
        await frames.end_one()
        assert frames.begun == CALM_FRAMES * WORKERS + 1


async def test_a_frame_waits_for_the_photos(frames: Frames) -> None:
    async with AsyncExitStack() as photos:
        for _ in range(2):
            photos.enter_context(frames.backlog.image())
        async with frames.waiting(3):
            assert frames.begun == 0
            await photos.aclose()
            await settled()
            assert frames.begun == 1  # more photos are likely
            await frames.end_one()
            assert frames.begun == 2


async def test_a_second_after_the_last_photo_is_calm(frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_time, "CALM_S", 0.0)
    with frames.backlog.image():
        pass
    async with frames.waiting(3):
        assert frames.begun == 3


async def test_a_frame_runs_below_any_load(frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare_time, "MAX_WAIT_S", 0.05)
    with frames.backlog.image():
        async with frames.waiting(3):
            await asyncio.sleep(0.5)
            assert frames.begun == 1
            await frames.end_one()
            await asyncio.sleep(0.5)
            assert frames.begun == 2
