"""Workers of pytest-xdist: which tests one of them gets, and when the others have to wait for it."""

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

# Whatever takes long to start is started once: the tests that share it stay together.
SHARED = {
    "triton": r"tests/contract/.*\[(.*-)?triton\b|tests/system/test_(triton_engine|gateway_lock)\.py",
    "contract": r"tests/contract/",
    "hardened triton": r"tests/deploy/test_(image|monitoring|triton_options)\.py",
    "browser": r"tests/playground/",
}


def scope(nodeid: str) -> str:
    """What one worker gets as a whole: a file's tests, or those of all files that share something."""
    file = nodeid.partition("::")[0]
    return next((name for name, tests in SHARED.items() if re.match(tests, nodeid)), file)


def scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    # Tests run without pytest-xdist, too.
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    return Scheduling(config, log)


WORKER = os.environ.get("PYTEST_XDIST_WORKER")
# Any two files that all workers see; they are only locked.
DOOR, ROOM = Path(__file__), Path(__file__).with_name("conftest.py")


@contextmanager
def turn(alone: bool) -> Iterator[None]:
    """Waits while another worker runs a test that must be alone, or any other test if this one must be."""
    if WORKER is None:
        yield
        return
    # Closing a file unlocks it.
    with ROOM.open() as room:
        # Who waits until the room is empty keeps the door shut: else others might come in for ever.
        with DOOR.open() as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
