"""What a key can open."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """Which calls each opens stands in service/http/layers/authentication.py."""

    PREDICT = "predict"
    BATCH = "batch"
    ADMIN = "admin"
