"""How many images wait, and whether one more would only lengthen a queue that stands.

A burst is welcome: it is worked off while others are few. A queue that never empties is not: it answers no
more than a short one, only later. So once more arrives than can be answered, no more are let in than keep the
workers busy (the idea of CoDel, RFC 8289, applied where requests are let in).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STANDING_S = 0.5
CALM_S = 10.0
MIN_LIMIT = 8  # a few callers that ask again at once are no overload, however few the workers


class Backlog:
    """Images at work or waiting; `workers` of them can be at work.

    Somebody has waited all the time for `STANDING_S`: from then on, and until this was not so for `CALM_S`,
    the backlog is full when `images_per_worker` are in it for each worker, and at least `MIN_LIMIT`.
    """

    def __init__(
        self, workers: int, images_per_worker: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers = workers
        self._limit = max(images_per_worker * workers, MIN_LIMIT)
        self._now = now
        self._images = 0
        self._changed_at = now()
        self._nobody_waited_at = -math.inf
        self._strained_until = -math.inf

    @property
    def full(self) -> bool:
        """Whether a newcomer should come again later."""
        return self._images >= self._limit and self._now() < self._strained_until

    @property
    def rest_s(self) -> float:
        """For how long no image has been there."""
        return 0.0 if self._images else self._now() - self._changed_at

    @property
    def sparse(self) -> bool:
        """Whether every image at work could have the core of another worker as well."""
        return 2 * self._images <= self._workers

    @contextmanager
    def image(self) -> Iterator[None]:
        """Around one image, from when it could be worked on until its answer is there."""
        self._changed(1)
        try:
            yield
        finally:
            self._changed(-1)

    def _changed(self, change: int) -> None:
        now = self._changed_at = self._now()
        if self._images <= self._workers:
            self._nobody_waited_at = now
        if now - self._nobody_waited_at > STANDING_S:
            self._strained_until = now + CALM_S
        self._images += change
