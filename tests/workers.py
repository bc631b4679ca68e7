"""Workers of pytest-xdist: which tests stay on one worker, and which tests run alone."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

# What takes long to start is started once: tests that share it stay on one worker.
SHARED = {
    "triton": r"tests/contract/.*\[(.*-)?triton\b|tests/system/test_(triton_engine|gateway_lock)\.py",
    "contract": r"tests/contract/",
    "hardened triton": r"tests/deploy/test_(image|monitoring|triton_options)\.py",
    "browser": r"tests/playground/",
}


def scope(nodeid: str) -> str:
    """The group of a test, which one worker runs as a whole: a file, or a name in `SHARED`."""
    file = nodeid.partition("::")[0]
    return next((name for name, tests in SHARED.items() if re.match(tests, nodeid)), file)


def scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    # Imported here, since tests also run without pytest-xdist.
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    return Scheduling(config, log)


WORKER = os.environ.get("PYTEST_XDIST_WORKER")
# Two files that all workers see. Any two do, since the tests only lock them.
ENTRY_LOCK, RUN_LOCK = Path(__file__), Path(__file__).with_name("conftest.py")


@contextmanager
def run_lock(alone: bool) -> Iterator[None]:
    """Let one test run. An `alone` test waits for the tests of all other workers, and they wait for it."""
    if WORKER is None:
        yield
        return
    # Closing a file unlocks it.
    with RUN_LOCK.open() as run:
        # An `alone` test keeps the entry lock while it waits for the run lock. Otherwise other workers could
        # start more tests for ever.
        with ENTRY_LOCK.open() as entry:
            fcntl.flock(entry, fcntl.LOCK_EX)
            fcntl.flock(run, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
