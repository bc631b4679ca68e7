"""How many images wait, and whether one more would only lengthen a queue that stands.

A burst is welcome: it is worked off while others are few. A queue that never empties is not: it answers no
more than a short one, only later. So once more arrives than can be answered, nobody is let in who would wait
long (the idea of CoDel, RFC 8289, applied where requests are let in).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STANDING_S = 0.5
CALM_S = 10.0
# Over how much of the time in which somebody waited the rate of answers is measured.
MEMORY_S = 2.0
LEAST_IMAGES_PER_WORKER = 2  # what is next must be at hand when a worker is free


class Backlog:
    """Images at work or waiting; `workers` of them can be at work.

    Somebody has waited all the time for `STANDING_S`: from then on, and until this was not so for `CALM_S`,
    the backlog is full when what is in it takes `max_wait_s`, at the rate at which images are answered.
    """

    def __init__(self, workers: int, max_wait_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._max_wait_s = max_wait_s
        self._now = now
        self._images = 0
        self._changed_at = now()
        self._nobody_waited_at = -math.inf
        self._strained_until = -math.inf
        # Both fade, and only while somebody waits: what is done when nobody does tells nothing of the limit.
        self._strained_s = 0.0
        self._answered = 0.0

    @property
    def full(self) -> bool:
        """Whether a newcomer should come again later."""
        return self._now() < self._strained_until and self._images >= self._limit

    @property
    def idle(self) -> bool:
        return self._images == 0

    @contextmanager
    def image(self) -> Iterator[None]:
        """Around one image, from when it could be worked on until its answer is there."""
        self._changed(1)
        try:
            yield
        finally:
            self._changed(-1)

    @property
    def _limit(self) -> float:
        # As if one more were answered right now: it may be, and else nothing would be known at first.
        per_s = (self._answered + 1) / self._strained_s if self._strained_s else math.inf
        return max(LEAST_IMAGES_PER_WORKER * self._workers, self._max_wait_s * per_s)

    def _changed(self, change: int) -> None:
        now = self._now()
        if self._images <= self._workers:
            self._nobody_waited_at = now
        else:
            passed_s = now - self._changed_at
            kept = math.exp(-passed_s / MEMORY_S)
            self._strained_s = kept * self._strained_s + passed_s
            self._answered = kept * self._answered + (change < 0)
        if now - self._nobody_waited_at > STANDING_S:
            self._strained_until = now + CALM_S
        self._changed_at = now
        self._images += change
