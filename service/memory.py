"""How this process holds on to memory that it has freed."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def bound_heap() -> None:
    """Keep freed memory for the next request, but not without end. Call it before threads start.

    Left alone, glibc keeps a heap for each thread, and ever larger blocks in it once it has seen such freed:
    the process grows to what the largest photos of all threads once needed. Now large photos go back to the
    system, what a photo of up to a megapixel needs stays, and threads share two heaps. Without glibc nothing
    is done.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in ((_MMAP_THRESHOLD, 6 << 20), (_TRIM_THRESHOLD, 40 << 20), (_ARENA_MAX, 2)):
        mallopt(option, value)
