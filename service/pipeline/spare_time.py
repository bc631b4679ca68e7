"""When a frame of a recording may run: in the time that photos leave."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.core.backlog import Backlog

# After a photo, more photos are likely: for this time, frames run one after the other.
CALM_S = 1.0
CALM_FRAMES = 3
# A recording moves on below any load.
MAX_WAIT_S = 1.0


class SpareTime:
    """Gives turns to frames. A frame begins when no photo is at work or waiting, or after `MAX_WAIT_S`.

    One frame is at work at a time. Once there has been no photo for `CALM_S`, there are `CALM_FRAMES` for
    each worker: while some wait for the classifier, others use the worker.
    """

    def __init__(self, backlog: Backlog, workers: int) -> None:
        self._backlog = backlog
        self._calm_frames = CALM_FRAMES * workers
        self._frames = 0
        self._photo_at = -math.inf
        self._next = asyncio.Lock()
        self._changed = asyncio.Event()
        backlog.changed = self._look

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Around one frame. Turns come in the order in which they are requested."""
        async with self._next:
            await self._wait()
            self._frames += 1
        try:
            yield
        finally:
            self._frames -= 1
            self._changed.set()

    async def _wait(self) -> None:
        began = time.monotonic()
        while not self._may_begin():
            waited_s = time.monotonic() - began
            if waited_s >= MAX_WAIT_S and not self._frames:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(max(MAX_WAIT_S - waited_s, 0) or None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _may_begin(self) -> bool:
        if self._photos() > 0:
            return False
        calm = time.monotonic() - self._photo_at >= CALM_S
        return self._frames < (self._calm_frames if calm else 1)

    def _photos(self) -> int:
        return self._backlog.images - self._frames

    def _look(self) -> None:
        if self._photos() > 0:
            self._photo_at = time.monotonic()
        else:
            self._changed.set()
