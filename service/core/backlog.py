"""How many images are at work or waiting, and when to refuse more.

The idea is CoDel's (RFC 8289), applied to admission. A short burst is accepted. A queue that never empties
only adds delay. While such a queue lasts, the limit is the number of images that keeps the workers busy.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STANDING_S = 0.5
CALM_S = 10.0
MIN_LIMIT = 8  # a few clients that retry at once are no overload, even with one worker


class Backlog:
    """Images at work or waiting. At most `workers` images are at work.

    The backlog is strained when images have waited without a break for `STANDING_S`, and for `CALM_S` after.
    A strained backlog is full at `images_per_worker * workers` images, or at `MIN_LIMIT` if that is more.
    """

    def __init__(
        self, workers: int, images_per_worker: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers = workers
        self._limit = max(images_per_worker * workers, MIN_LIMIT)
        self._now = now
        self._images = 0
        self._changed_at = now()
        self._no_queue_at = -math.inf
        self._strained_until = -math.inf
        self.changed: Callable[[], object] = lambda: None
        """Called when the number of images has changed."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._promised = 0  # places of frames that were let in and are not images yet

    @property
    def images(self) -> int:
        """Images at work or waiting."""
        return self._images

    async def wait(self) -> None:
        """Wait, in turn, while a strained backlog is more than half full: the other half is for requests.

        For frames of streams: each stream has one frame at work at most, and the newest frame wins. The frame
        must enter `image` before its task waits again.
        """
        if not self._waiting and self._places_of_frames > 0:
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        finally:
            if turn.done() and not turn.cancelled():
                self._promised -= 1
                loop.call_soon(self._wake)  # unless the frame has become an image by then

    @property
    def _places_of_frames(self) -> float:
        return (self._limit + 1) // 2 - self._images - self._promised if self._strained else math.inf

    @property
    def _strained(self) -> bool:
        return self._now() < self._strained_until

    @property
    def full(self) -> bool:
        """Whether a new image must be refused."""
        return self._images + self._promised >= self._limit and self._strained

    @property
    def rest_s(self) -> float:
        """For how long no image has been there."""
        return 0.0 if self._images else self._now() - self._changed_at

    @property
    def sparse(self) -> bool:
        """Whether every image at work can use the core of a second worker."""
        return 2 * self._images <= self._workers

    @contextmanager
    def image(self) -> Iterator[None]:
        """Around one image, from its admission to its answer."""
        self._changed(1)
        try:
            yield
        finally:
            self._changed(-1)

    def _changed(self, change: int) -> None:
        now = self._changed_at = self._now()
        if self._images <= self._workers:
            self._no_queue_at = now
        if now - self._no_queue_at > STANDING_S:
            self._strained_until = now + CALM_S
        self._images += change
        self.changed()
        if change < 0:
            self._wake()

    def _wake(self) -> None:
        """Let in as many frames as there are places."""
        while self._waiting and self._places_of_frames > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._promised += 1
