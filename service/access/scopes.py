"""The scopes of API keys."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """service/http/route_table.py has the routes of each scope."""

    PREDICT = "predict"
    BATCH = "batch"
    ADMIN = "admin"
