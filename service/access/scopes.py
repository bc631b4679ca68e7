"""What a key can open."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """service/http/route_table.py says which calls each of them opens."""

    PREDICT = "predict"
    BATCH = "batch"
    ADMIN = "admin"
