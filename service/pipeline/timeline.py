"""The faces of a video, frame by frame: seen by a pipeline, and followed over time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from service.core.arrays import Image
from service.core.seen import Seen
from service.tracking.record import Followed, Record

# Frames in flight: enough for every worker thread of a small machine.
AHEAD = 4


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
    frames: Generator[tuple[float, Image], None, None],
    see: Callable[[Image], Coroutine[Any, Any, Seen]],
    record: Record,
    stopped: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Moment, None]:
    """Each frame with its faces, in order, while the next frames are in flight.

    After `stopped`, only the frames in flight follow. Raises what `frames` and `see` raise.
    """
    in_flight: deque[tuple[float, Image, asyncio.Task[Seen]]] = deque()
    reading: asyncio.Future[tuple[float, Image] | None] | None = None
    try:
        ended = False
        while not ended or in_flight:
            ended = ended or stopped()
            if not ended:
                # Only one thread reads the video at a time: the decoder is not thread-safe. Not `to_thread`:
                # the end of the loop cancels every task, but the thread would still read.
                reading = asyncio.get_running_loop().run_in_executor(None, next, frames, None)
                found = await asyncio.shield(reading)
                if found is not None:
                    in_flight.append((*found, asyncio.create_task(see(found[1]))))
                ended = found is None
            while in_flight and (ended or len(in_flight) >= AHEAD):
                time_s, pixels, task = in_flight.popleft()
                seen = await task
                yield Moment(time_s, pixels, seen, record.update(seen, time_s))
    finally:
        for *_, task in in_flight:
            task.cancel()
        await asyncio.gather(*(task for *_, task in in_flight), return_exceptions=True)
        if reading is not None:
            await asyncio.wait([reading])  # a generator that runs cannot be closed
        await asyncio.to_thread(frames.close)
