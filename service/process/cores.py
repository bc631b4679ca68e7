"""How many cores this process may use. A container may use fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cores_of_process() -> float:
    """Cores that this process may use: the smaller of its CPU affinity and its control group's quota."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = (
                (CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        except OSError:
            return cores
    # `max` in version 2 and -1 in version 1 mean that there is no quota.
    return min(cores, int(quota) / int(period)) if quota.strip().isdecimal() else cores


def fitting_threads(cores: float, processes: int) -> int:
    """Worker threads per process that keep all cores busy.

    With several processes each has two threads or more. With one thread, its core would idle while its only
    image waits for a batch.
    """
    return max(1 if processes == 1 else 2, math.ceil(cores) // processes)
