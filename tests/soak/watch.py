"""Samples of the serving process: requests so far, CPU time, memory, descriptors and threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil

from tests.bench.process import cpu_time, memory_mb


@dataclass(frozen=True)
class Sample:
    at_s: float
    requests: int
    cpu_s: float
    rss_mb: float
    pss_mb: float
    descriptors: int
    threads: int


def sample(pid: int, requests: int) -> Sample:
    process = psutil.Process(pid)
    rss, pss = memory_mb(pid)
    return Sample(
        time.perf_counter(),
        requests,
        cpu_time(pid).all_s,
        rss,
        pss,
        process.num_fds(),
        process.num_threads(),
    )


@dataclass
class Watch:
    """Samples of one process, taken every `interval_s` until it is cancelled."""

    pid: int
    requests: Callable[[], int]
    interval_s: float
    samples: list[Sample] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            self.samples.append(sample(self.pid, self.requests()))
            await asyncio.sleep(self.interval_s)


def cpu_per_request_ms(samples: Sequence[Sample]) -> float:
    """The CPU time of the process per request, between the first sample and the last."""
    first, last = samples[0], samples[-1]
    return 1e3 * (last.cpu_s - first.cpu_s) / max(1, last.requests - first.requests)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of the least-squares line through all points."""
    return float(np.polyfit(x, y, 1)[0])
