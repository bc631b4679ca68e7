"""The time that an image spends in each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("queue", "decode", "detect", "align", "classify")


@dataclass(slots=True)
class Timings:
    """Seconds in each stage, of one image or of all images of a batch together.

    current: the latest stage. `queue` is all waiting: for a worker thread, for the switch to the thread and
    back, and for a batch.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    current: str = STAGES[0]

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def total(self) -> float:
        return sum(self.seconds.values())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.current = name
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)
