"""Processes of a benchmark: their start, cores, memory and CPU time."""

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
    """A program is not installed or does not run. The message has the reason."""


@contextmanager
def started(
    command: Sequence[str],
    ready: Callable[[], bool],
    *,
    folder: Path,
    environment: Mapping[str, str],
    limit_s: float,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ready; it is stopped when the block ends.

    Raises `NotRunning` with the last line of its output if it ends before it is ready.
    """
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
    return (text.strip().splitlines() or ["no output"])[-1]


@contextmanager
def started_on(cores: set[int]) -> Iterator[None]:
    """All processes that start in this block run on these cores only, with all their threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class CpuTime:
    """CPU seconds since the start: of all threads, and of the threads that run event loops."""

    all_s: float
    loop_s: float


def cpu_time(pid: int) -> CpuTime:
    """The CPU time of a gateway with all its processes.

    The first thread of each process runs the event loop. The others decode, align and infer.
    """
    processes = _process_tree(pid)
    loops = [
        thread
        for process in processes
        for thread in process.threads()
        if thread.id == process.pid  # on Linux, the id of the first thread
    ]
    times = [process.cpu_times() for process in processes]
    return CpuTime(
        sum(time.user + time.system for time in times),
        sum(thread.user_time + thread.system_time for thread in loops),
    )


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident and proportional set size (RSS, PSS) of all processes of a gateway, in MB of 1e6 bytes."""
    infos = [process.memory_full_info() for process in _process_tree(pid)]
    return sum(info.rss for info in infos) / 1e6, sum(info.pss for info in infos) / 1e6


def _process_tree(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]
