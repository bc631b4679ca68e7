"""Counts in messages."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Such as "1 face" and "2 faces"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
