"""Output formats of rows."""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    table = "table"
    jsonl = "jsonl"
    csv = "csv"
