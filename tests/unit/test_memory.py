"""What the process keeps of what it frees; asked of a process of its own, since nobody can undo it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from pathlib import Path
import numpy as np
from service.memory import bound_heap

bound_heap()

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

def faults_of(megabytes, times=50):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        np.ones(megabytes << 17)  # of 8 bytes
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / times

faults_of(2)
held = resident_mb()
large = np.ones(64 << 17)
grown = resident_mb()
del large
print(faults_of(2), grown - held, resident_mb() - held)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is Linux's")
def test_small_blocks_are_kept_and_large_ones_returned() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    faults, grown, kept = map(float, done.stdout.split())
    assert faults < 50  # of 512 pages
    assert grown > 60
    assert kept < 8


IDLING = """
import asyncio
import resource
from pathlib import Path
import numpy as np
from service import memory

memory.bound_heap()
memory.LOOK_S = 0.01

def resident_mb():
    return memory._resident_bytes() / 1e6

async def after(idle, worker_threads=1):
    task = asyncio.create_task(memory.give_back(lambda: idle, worker_threads))
    await asyncio.sleep(0)  # it sees how large the process was before
    # Each below what the system would get back by itself, and the last one keeps the others in the heap.
    blocks = [np.ones(1 << 17) for _ in range(80)]
    del blocks[:-1]
    grown = resident_mb()
    await asyncio.sleep(0.3)
    task.cancel()
    return grown - resident_mb()

memory.BUSY_BYTES = 20 << 20
for case in {"idle": False, "worker_threads": 8}, {"idle": False}, {"idle": True, "worker_threads": 8}:
    print(asyncio.run(after(**case)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is Linux's")
def test_what_was_freed_goes_back_at_rest_and_what_is_too_much_at_work() -> None:
    done = subprocess.run([sys.executable, "-c", IDLING], capture_output=True, text=True, check=True)
    busy, far_grown, idle = map(float, done.stdout.split())
    assert abs(busy) < 8
    assert far_grown > 60
    assert idle > 60
