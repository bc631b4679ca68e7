"""Memory of this process that nobody uses."""

from __future__ import annotations

import ctypes
import gc
import sys


def release_unused() -> None:
    """Return freed memory to the system, for once after a start: imports and models leave some 10 MB of it.

    Nothing is done without glibc.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
