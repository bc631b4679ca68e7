"""Formats JSON for the pages. A value that fits is on one line, and the numbers of a list share lines."""

from __future__ import annotations

import json
import re
from typing import Any

WIDTH = 110


def as_json(value: Any, indent: int = 0) -> str:
    """The text without a final newline. indent: the number of spaces before its first line."""
    short = _short_exponents(json.dumps(value, ensure_ascii=False))
    if not isinstance(value, dict | list) or not value:
        return short
    if indent and len(short) + indent <= WIDTH:
        return short
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    inner = indent + 2
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {as_json(each, inner)}" for key, each in value.items()]
        values = list(value.values())
    else:
        parts, values = [as_json(each, inner) for each in value], value
    if indent and len(values) > 4 and all(isinstance(each, int | float) for each in values):
        parts = _filled(parts, WIDTH - inner)
    body = ",\n".join(" " * inner + part for part in parts)
    return f"{opening}\n{body}\n{' ' * indent}{closing}"


def _filled(parts: list[str], width: int) -> list[str]:
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 2 <= width:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines


def _short_exponents(text: str) -> str:
    """Writes `7e-06` as `7e-6`, as the service does."""
    return re.sub(r"(?<=\de-)0(?=\d)", "", text)
