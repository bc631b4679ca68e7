"""Limits the freed memory that this process keeps. Without glibc, nothing happens."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# Options of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

LOOK_S = 1.0
REST_S = 2.0  # not the moment between two photos: what is in use then would count as kept
GROWN_BYTES = 16 << 20  # by which the process may have grown at rest


def bound_heap() -> None:
    """Keep the memory that photos of a few megapixels need, and return the rest as soon as it is freed.

    Call this before threads start. By default glibc keeps a heap for each thread: the process grows to the
    sum of the largest photos of all threads.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        for option, value in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 128 << 20), (_ARENA_MAX, 2)):
            mallopt(option, value)


def end_startup() -> None:
    """Return the memory that only the start needed, about 10 MB, and keep what is left out of collections.

    What the start made lives as long as the process. A full collection would look at it again, for 50 ms in
    which no request is answered.
    """
    release_unused()
    gc.freeze()


def release_unused() -> None:
    """Return all freed memory to the system."""
    gc.collect()
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


async def release_at_rest(rest_s: Callable[[], float]) -> None:
    """For ever. While photos come, what is kept is quick to use again; at rest it is only held."""
    released = _resident_bytes()
    while True:
        await asyncio.sleep(LOOK_S)
        if rest_s() >= REST_S and _resident_bytes() > released + GROWN_BYTES:
            await asyncio.to_thread(release_unused)
            released = _resident_bytes()


def _of_glibc(name: str) -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function


def _resident_bytes() -> int:
    """0 if the system does not report memory, or no file descriptor is free."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
