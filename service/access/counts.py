"""Counts what callers spend of their rates, in the memory of one process."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from itertools import islice
from typing import NamedTuple, Protocol

from service.access.rates import Caller, Rate, Spent

MAX_CALLERS = 65_536
"""Maximum number of counted callers; a new caller replaces the one that was idle for longest."""


class Counts(Protocol):
    """Counts images: in this process, in the supervisor for all processes, or in Redis for all gateways."""

    async def spend(self, rate: Rate, caller: Caller, images: int) -> Spent:
        """Spend the images if all of them are within the rate, else none."""


class _Window(NamedTuple):
    number: int
    images: int
    images_before: int  # in the window before this one


class LocalCounts:
    """A sliding window for each caller, made of two counts.

    Images of the window before count in proportion to the part that the sliding window still covers.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[tuple[Caller, Rate], _Window] = OrderedDict()

    def __len__(self) -> int:
        """Number of counted callers."""
        return len(self._windows)

    async def spend(self, rate: Rate, caller: Caller, images: int) -> Spent:
        now_s = time.monotonic()
        number, elapsed_s = int(now_s // rate.window_s), now_s % rate.window_s
        found = self._windows.pop((caller, rate), _Window(number, 0, 0))
        spent = found.images if found.number == number else 0
        before = {number: found.images_before, number - 1: found.images}.get(found.number, 0)
        still_counted = before * (1 - elapsed_s / rate.window_s)
        remaining = max(0, rate.images - spent - math.floor(still_counted))
        allowed = images <= remaining
        if allowed:
            spent, remaining = spent + images, remaining - images
        self._windows[caller, rate] = _Window(number, spent, before)
        self._forget(now_s)
        # After this time one more image of the window before no longer counts, or this window ends.
        reset_s = still_counted % 1 / before * rate.window_s if before else rate.window_s - elapsed_s
        return Spent(allowed, remaining, math.ceil(reset_s))

    def _forget(self, now_s: float) -> None:
        """Drop the callers that were idle for longest, if there are too many or their counts have expired.

        Each call drops at most two, so that no caller waits. Each call adds at most one, so two are enough.
        """
        for (caller, rate), window in list(islice(self._windows.items(), 2)):
            if len(self._windows) > MAX_CALLERS or now_s // rate.window_s - window.number >= 2:
                del self._windows[caller, rate]
