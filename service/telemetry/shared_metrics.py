"""The metrics of several processes together: prometheus_client's files and `process_*` of each process."""

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
# A new folder may not be locked yet.
LEFTOVER_AGE_S = 60.0


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """A new folder, removed at the end. Also removes the folders of services that were killed."""
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
    """Raises `OSError` if the folder is in use or belongs to another user."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(lock).st_mtime > LEFTOVER_AGE_S:
            shutil.rmtree(folder)
    finally:
        os.close(lock)


def share_metrics(folder: Path, number: int) -> CollectorRegistry:
    """Keep the metrics made after this call in files of `folder`; return a registry of all processes.

    number: of this process. A process that replaces another has its number and resumes its counts, so that
    nothing is lost and no file is added.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    registry.register(Processes(folder))
    return registry


class Processes(Collector):
    """`process_*` with a label `process`, not summed: a sum would fall when a process is replaced."""

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
    """Show `process_*` of a process in `/metrics`, inside the context."""
    file = folder / f"{name}_{pid}.pid"
    file.touch()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
