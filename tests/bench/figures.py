"""What a benchmark tells: medians with their spread, and ratios of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

ROUNDS = 7  # of a call in this process
SERVED_ROUNDS = 5  # of seconds of load each
WARM_UP = 2


@dataclass(frozen=True)
class Figure:
    """Median and spread of one measurement over the rounds."""

    name: str
    unit: str
    median: float
    least: float
    most: float
    note: str = ""


@dataclass(frozen=True)
class Unmeasured:
    """What should have been measured, and why it was not."""

    name: str
    reason: str


@dataclass(frozen=True)
class Remark:
    """What a run says without a number."""

    name: str
    text: str


Row = Figure | Remark | Unmeasured  # of a run's table


def spread(name: str, unit: str, rounds: Sequence[float], note: str = "") -> Figure:
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
    return spread(name, "ms", times, note)


def converted(
    figure: Figure, name: str, unit: str, convert: Callable[[float], float], note: str = ""
) -> Figure:
    """The same measurement in another unit; least and most change places where less means more."""
    least, most = sorted((convert(figure.least), convert(figure.most)))
    return Figure(name, unit, convert(figure.median), least, most, note)


def ratio(name: str, slow: Figure, quick: Figure, note: str = "") -> Figure:
    """Of figures that were measured one after the other: its spread is the widest that they allow."""
    return Figure(
        name, "x", slow.median / quick.median, slow.least / quick.most, slow.most / quick.least, note
    )


def ratios(name: str, over: Sequence[float], under: Sequence[float], note: str = "") -> Figure:
    """Of interleaved rounds: each is divided by its neighbour, so that a slow minute slows both."""
    shares = [one / other if other else math.inf for one, other in zip(over, under, strict=True)]
    return spread(name, "x", shares, note)


def alternating(*calls: Callable[[], T], rounds: int) -> list[list[T]]:
    """What each call returns in each round; the call that begins a round changes."""
    results: list[list[T]] = [[] for _ in calls]
    both = list(zip(calls, results, strict=True))
    for _ in range(rounds):
        for call, returned in both:
            returned.append(call())
        both.reverse()
    return results
