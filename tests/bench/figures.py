"""The figures of a benchmark: medians with min and max, and ratios."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

ROUNDS = 7  # for a call in this process
SERVED_ROUNDS = 5  # for a server, each with seconds of load
WARM_UP = 2


@dataclass(frozen=True)
class Figure:
    """Median, min and max of one measurement over its rounds."""

    name: str
    unit: str
    median: float
    min: float
    max: float
    note: str = ""


@dataclass(frozen=True)
class Unmeasured:
    """A measurement that is missing, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Remark:
    """A row with text and no figure."""

    name: str
    text: str


Row = Figure | Remark | Unmeasured  # of the table that a run prints


def summary(name: str, unit: str, rounds: Sequence[float], note: str = "") -> Figure:
    """The figure of a measurement with one value for each round."""
    return Figure(name, unit, statistics.median(rounds), min(rounds), max(rounds), note)


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
    return summary(name, "ms", times, note)


def ratio(name: str, slow: Figure, quick: Figure, note: str = "") -> Figure:
    """The ratio of two figures that were measured one after the other.

    Min and max are the widest that the two figures allow.
    """
    return Figure(name, "x", slow.median / quick.median, slow.min / quick.max, slow.max / quick.min, note)


def ratios(name: str, numerators: Sequence[float], denominators: Sequence[float], note: str = "") -> Figure:
    """The ratio of two measurements whose rounds alternate.

    Each round is divided by its neighbour, so that a slow minute slows both.
    """
    quotients = [
        numerator / denominator if denominator else math.inf
        for numerator, denominator in zip(numerators, denominators, strict=True)
    ]
    return summary(name, "x", quotients, note)


def alternating(*calls: Callable[[], T], rounds: int) -> list[list[T]]:
    """The results of each call, one for each round. Each round has the reverse order of the round before."""
    results: list[list[T]] = [[] for _ in calls]
    calls_with_results = list(zip(calls, results, strict=True))
    for _ in range(rounds):
        for call, results_of_call in calls_with_results:
            results_of_call.append(call())
        calls_with_results.reverse()
    return results
