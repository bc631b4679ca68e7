"""A process as the machine sees it: its start, its cores, its memory, its CPU time."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import eventually
from tests.processes import stop


class NotRunning(Exception):
    """A program that is not installed or does not run; the text says why."""


@contextmanager
def started(
    command: Sequence[str],
    ready: Callable[[], bool],
    *,
    folder: Path,
    environment: Mapping[str, str],
    limit_s: float,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ready, until the block ends. Raises `NotRunning` with the last line that it wrote."""
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=log, stderr=log
        ) as process:
            try:
                eventually(lambda: process.poll() is not None or ready(), limit_s)
                if process.poll() is None:
                    yield process
                    return
            finally:
                stop(process)
        log.seek(0)
        raise NotRunning(f"does not run: {last_line(log.read())}")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]


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
