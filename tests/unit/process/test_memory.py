"""Which memory the process returns to the system, and when. Tests of the heap run in their own processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from service.process import memory

PROGRAM = """
import resource
from pathlib import Path
from service.process.memory import release_unused

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

before = resident_mb()
blocks = [bytearray(8000) for _ in range(10_000)]
grown = resident_mb()
last = bytearray(8000)  # above the blocks, so that the heap cannot shrink from its end
del blocks
kept = resident_mb()
release_unused()
print(grown - before, kept - before, resident_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the allocator of glibc")
def test_freed_memory_is_returned_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    grown, kept, remaining = map(float, done.stdout.split())
    assert grown > 70
    assert kept > 40, "the heap shrinks without a release, so the test shows nothing"
    assert remaining < 10


LARGE_BLOCKS = """
import resource
from pathlib import Path
from service.process.memory import bound_heap

bound_heap()

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

before = resident_mb()
for size in (40, 50, 60):  # by default glibc keeps blocks as large as earlier freed blocks
    large = bytearray(size << 20)
    last = bytearray(100_000)
    del large
print(resident_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the allocator of glibc")
def test_large_blocks_are_returned_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE_BLOCKS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 5


async def test_memory_is_released_at_rest_once_the_process_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = 100 << 20
    rest_s = 0.0
    released: list[int] = []
    done, loop = asyncio.Event(), asyncio.get_running_loop()

    def release() -> None:
        nonlocal resident
        released.append(resident)
        resident = 110 << 20
        loop.call_soon_threadsafe(done.set)

    monkeypatch.setattr(memory, "LOOK_S", 0)
    monkeypatch.setattr(memory, "_resident_bytes", lambda: resident)
    monkeypatch.setattr(memory, "release_unused", release)
    task = asyncio.create_task(memory.release_at_rest(lambda: rest_s))

    async def checks() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    await checks()
    resident = 200 << 20
    await checks()
    assert released == [], "photos arrive, so there is no rest"
    rest_s = memory.REST_S - 0.1
    await checks()
    assert released == [], "the pause between two photos is no rest"
    rest_s = memory.REST_S
    await done.wait()
    await checks()
    assert released == [200 << 20]
    task.cancel()


def test_without_a_free_descriptor_the_resident_memory_is_reported_as_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: object) -> str:
        raise OSError("too many open files")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert memory._resident_bytes() == 0
