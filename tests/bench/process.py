"""A serving process as the machine sees it: its cores, its memory, its CPU time, its start."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import psutil

from tests.bench.figures import SERVED_ROUNDS, Figure, spread
from tests.bench.load import Outcome, Request, callers, post
from tests.bench.photos import mixed
from tests.system.conftest import running

CALLERS = 8
WARM_UP_REQUESTS = 192
SIZES = 64  # different photos of the memory's measurement
SAMPLES = 20


@contextmanager
def started_on(cores: set[int]) -> Iterator[None]:
    """Processes that are started in this block run on these cores only, and so do all their threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class CpuTime:
    """Seconds since the start: of all threads, and of the threads that run the event loops."""

    all_s: float
    loop_s: float


def cpu_time(pid: int) -> CpuTime:
    """The event loop of each serving process runs in its first thread; the others decode, align and infer."""
    processes = _family(pid)
    loops = [
        thread
        for process in processes
        for thread in process.threads()
        if thread.id == process.pid  # Linux: the first thread has the process's number
    ]
    times = [process.cpu_times() for process in processes]
    return CpuTime(
        sum(time.user + time.system for time in times),
        sum(thread.user_time + thread.system_time for thread in loops),
    )


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident and proportional set size (RSS, PSS) in MB of 1e6 bytes, of all serving processes together."""
    infos = [process.memory_full_info() for process in _family(pid)]
    return sum(info.rss for info in infos) / 1e6, sum(info.pss for info in infos) / 1e6


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def start_up() -> Iterator[Figure]:
    seconds = []
    for _ in range(SERVED_ROUNDS):
        began = time.perf_counter()
        with running():
            seconds.append(time.perf_counter() - began)
    yield spread("start, from exec to ready", "s", seconds, "models warm")


def memory(soak_requests: int) -> Iterator[Figure]:
    with running(max_in_flight_requests=256, max_images_per_worker=1000) as gateway:
        pid = gateway.process.pid
        idle = memory_mb(pid)
        photos = [post(f"{gateway.url}/v1/emotions", jpeg) for jpeg in mixed(SIZES)]
        _ask(photos, WARM_UP_REQUESTS)
        samples = [memory_mb(pid)]
        asked = [0]
        errors = 0
        for _ in range(SAMPLES):
            errors += sum(_ask(photos, soak_requests // SAMPLES).errors.values())
            samples.append(memory_mb(pid))
            asked.append(asked[-1] + soak_requests // SAMPLES)
    resident, proportional = zip(*samples, strict=True)
    yield spread("memory at the start, RSS", "MB", [idle[0]], "ready, nothing asked")
    load = f"{asked[-1]} requests of {SIZES} sizes, {CALLERS} callers, {errors} errors"
    yield spread("memory after warm-up, RSS", "MB", resident, load)
    yield spread("memory after warm-up, PSS", "MB", proportional, load)
    yield Figure(
        "memory's slope, PSS",
        "MB per 1,000 requests",
        _slope(asked, proportional),
        *_extremes(asked, proportional),
        "a line through all samples; least and most: through its fifths",
    )


def _ask(photos: list[Request], count: int) -> Outcome:
    rounds = (photo for _ in range(count) for photo in photos)
    return callers(CALLERS, islice(rounds, count))


def _slope(requests: list[int], mb: tuple[float, ...]) -> float:
    return 1e3 * float(np.polyfit(requests, mb, 1)[0])


def _extremes(requests: list[int], mb: tuple[float, ...]) -> tuple[float, float]:
    step = SAMPLES // 5
    slopes = [_slope(requests[at : at + step + 1], mb[at : at + step + 1]) for at in range(0, SAMPLES, step)]
    return min(slopes), max(slopes)
