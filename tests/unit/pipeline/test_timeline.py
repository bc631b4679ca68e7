"""The frames of a video, followed over time, over a scripted pipeline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator

import numpy as np
import pytest

from service.core.arrays import Image
from service.core.seen import Seen
from service.pipeline.timeline import AHEAD, follow
from service.tracking.record import Record
from tests.seen import FaceSeen, seen

PIXELS = np.zeros((8, 8, 3), np.uint8)
Frames = Generator[tuple[float, Image], None, None]


def frames(count: int) -> Frames:
    for number in range(count):
        yield number / 5, PIXELS


async def see(image: Image) -> Seen:
    return seen(FaceSeen())


def record() -> Record:
    return Record(0.5, 0.5)


async def test_frames_come_in_order_with_their_tracks() -> None:
    moments = [moment async for moment in follow(frames(10), see, record())]
    assert [moment.time_s for moment in moments] == [number / 5 for number in range(10)]
    assert {track.number for moment in moments for track in moment.followed} == {1}


async def test_after_a_stop_only_frames_in_flight_follow() -> None:
    stop = asyncio.Event()
    count = 0
    async for _ in follow(frames(1000), see, record(), stop.is_set):
        stop.set()
        count += 1
    assert 1 <= count <= AHEAD


async def test_the_error_of_a_frame_is_raised() -> None:
    async def fail(image: Image) -> Seen:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        async for _ in follow(frames(10), fail, record()):
            pass


async def test_a_cancelled_run_waits_for_the_thread_that_reads() -> None:
    """The frames cannot be closed while they are read."""
    reading, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Frames:
        try:
            reading.set()
            go_on.wait(30)
            yield 0.0, PIXELS
        finally:
            closed.set()

    async def run() -> None:
        async for _ in follow(slow(), see, record()):
            pass

    running = asyncio.create_task(run())
    await asyncio.to_thread(reading.wait, 30)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert closed.is_set()
