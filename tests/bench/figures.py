"""What a benchmark tells: medians with their spread, and ratios of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

ROUNDS = 7
WARM_UP = 2  # torch's executor specialises a script in its first runs


@dataclass(frozen=True)
class Figure:
    """Median and spread of one measurement over the rounds."""

    name: str
    unit: str
    median: float
    least: float
    most: float
    note: str = ""


def timed(
    name: str, call: Callable[[], object], note: str = "", *, calls: int = 3, rounds: int = ROUNDS
) -> Figure:
    """Milliseconds per call; the first calls warm up and do not count."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - started) / calls * 1e3)
    return Figure(name, "ms", statistics.median(times), min(times), max(times), note)


def ratio(name: str, slow: Figure, quick: Figure) -> Figure:
    return Figure(name, "x", slow.median / quick.median, slow.least / quick.most, slow.most / quick.least)
