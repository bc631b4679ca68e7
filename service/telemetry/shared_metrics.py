"""The metrics of several processes as one: prometheus_client's files, and what the system knows of each."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

PREFIX = "expressnet-metrics-"
# A folder that was made just now may not be locked yet.
LEFTOVER_AGE_S = 60.0


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """A new folder, removed at the end. Removes the folders of services that were killed, too."""
    for leftover in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            _remove_unless_in_use(leftover)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system unlocks it, however the process ends
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_unless_in_use(folder: Path) -> None:
    """Raises `OSError` if it is in use, or not this user's."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(lock).st_mtime > LEFTOVER_AGE_S:
            shutil.rmtree(folder)
    finally:
        os.close(lock)


def share_metrics(folder: Path, number: int) -> CollectorRegistry:
    """Keep the metrics made from now on in files of `folder`; returns what shows those of all processes.

    number: of this process among those that run. One that takes the place of another resumes its counts, so
    nothing is lost and no file is added.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    registry.register(Processes(folder))
    return registry


class Processes(Collector):
    """`process_*` of each process, by the label `process`: sums would fall when one is replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for name, pid in sorted(path.stem.split("_") for path in self._folder.glob("*.pid")):
            for found in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.add_sample(sample.name, {"process": name}, sample.value)
        return families.values()


@contextmanager
def process_shown(folder: Path, name: str, pid: int) -> Iterator[None]:
    """Have `process_*` of a process among those that `/metrics` shows."""
    file = folder / f"{name}_{pid}.pid"
    file.touch()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
