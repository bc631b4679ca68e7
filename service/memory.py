"""How this process holds on to memory that it has freed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

# Of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

LOOK_S = 1.0
# By how much the process may have grown: at rest, and at work for each worker thread. Photos of all sizes
# need some 60 MB a thread for a moment, and leave by chance as much again between blocks that live longer.
IDLE_BYTES, BUSY_BYTES = 32 << 20, 56 << 20


def bound_heap() -> None:
    """Keep freed memory for the next request, but not without end. Call it before threads start.

    Left alone, glibc keeps a heap for each thread, and ever larger blocks in it once it has seen such freed:
    the process grows to what the largest photos of all threads once needed. Now large photos go back to the
    system, what a photo of up to a megapixel needs stays, and threads share two heaps. Without glibc nothing
    is done.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return
    for option, value in ((_MMAP_THRESHOLD, 6 << 20), (_TRIM_THRESHOLD, 40 << 20), (_ARENA_MAX, 2)):
        mallopt(option, value)


async def give_back(idle: Callable[[], bool], worker_threads: int) -> None:
    """Hand freed memory back to the system, for ever: when the process has grown, at rest sooner than not.

    While photos come, what the heap keeps is quick to use again; afterwards it would only be held.
    """
    trim = _of_glibc("malloc_trim")
    if trim is None:
        return
    busy_bytes = BUSY_BYTES * max(2, worker_threads)  # a single thread needs as much for its largest photo
    least = _resident_bytes()
    while True:
        await asyncio.sleep(LOOK_S)
        if _resident_bytes() > least + (IDLE_BYTES if idle() else busy_bytes):
            await asyncio.to_thread(trim, 0)
            least = _resident_bytes()
        least = min(least, _resident_bytes())


def _of_glibc(name: str) -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
