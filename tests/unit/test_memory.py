"""What the process returns to the system; run in a process of its own, whose heap nothing else uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from pathlib import Path
from service.memory import release_unused

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

before = resident_mb()
blocks = [bytearray(8000) for _ in range(10_000)]
grown = resident_mb()
last = bytearray(8000)  # above the others, so that the heap cannot shrink from its end
del blocks
kept = resident_mb()
release_unused()
print(grown - before, kept - before, resident_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is Linux's")
def test_what_was_freed_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    grown, kept, remaining = map(float, done.stdout.split())
    assert grown > 70
    assert kept > 40, "the heap returns it by itself: the test shows nothing"
    assert remaining < 10
