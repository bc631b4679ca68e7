"""The faces of a video, frame by frame: seen by a pipeline, and followed over time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from service.core.arrays import Image
from service.core.seen import Seen
from service.tracking.record import Followed, Record

T = TypeVar("T")
Frames = Generator[tuple[float, Image], None, None]

# Frames in flight: enough that small machines never wait for what follows the pipeline.
AHEAD = 6


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame of a video: its time, its pixels, the faces in it, and the track of each.

    time_s: seconds since the first frame. pixels: uint8 [H,W,3]; who keeps them keeps megabytes.
    """

    time_s: float
    pixels: Image
    seen: Seen
    followed: list[Followed]


async def follow(
    frames: Frames,
    see: Callable[[Image], Coroutine[Any, Any, Seen]],
    record: Record,
    stopped: Callable[[], bool] = lambda: False,
    executor: Executor | None = None,
) -> AsyncGenerator[Moment, None]:
    """Each frame with its faces, in order, while the next frames are in flight.

    After `stopped`, only the frames in flight follow. Raises what `frames` and `see` raise.
    """
    async with aclosing(in_order(frames, see, stopped, executor)) as found:
        async for time_s, pixels, seen in found:
            yield Moment(time_s, pixels, seen, record.update(seen, time_s))


async def in_order(
    frames: Frames,
    see: Callable[[Image], Coroutine[Any, Any, T]],
    stopped: Callable[[], bool] = lambda: False,
    executor: Executor | None = None,
) -> AsyncGenerator[tuple[float, Image, T], None]:
    """Each frame with its time and what `see` returns, as `follow`.

    executor: reads the frames, by default the one of the event loop.
    """
    in_flight: deque[tuple[float, Image, asyncio.Task[T]]] = deque()
    reading: asyncio.Future[tuple[float, Image] | None] | None = None
    loop = asyncio.get_running_loop()
    try:
        ended = False
        while not ended or in_flight:
            ended = ended or stopped()
            if not ended:
                # Only one thread reads the video at a time: the decoder is not thread-safe. Not `to_thread`:
                # the end of the loop cancels every task, but the thread would still read.
                reading = loop.run_in_executor(executor, next, frames, None)
                found = await asyncio.shield(reading)
                if found is not None:
                    in_flight.append((*found, asyncio.create_task(see(found[1]))))
                ended = found is None
            while in_flight and (ended or len(in_flight) >= AHEAD):
                time_s, pixels, task = in_flight.popleft()
                yield time_s, pixels, await task
    finally:
        for *_, task in in_flight:
            task.cancel()
        await asyncio.gather(*(task for *_, task in in_flight), return_exceptions=True)
        if reading is not None:
            await asyncio.wait([reading])  # a generator that runs cannot be closed
            if not reading.cancelled():
                reading.exception()  # retrieved, or it would be logged
        await loop.run_in_executor(executor, frames.close)
