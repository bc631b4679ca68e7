"""Whether a block that shows an answer shows the one that came."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any


class Differs(Exception):
    """What is shown is not what came; the message says where."""


def compare(language: str, shown: str, came: str) -> None:
    if language == "json":
        _compare_json(json.loads(shown), came)
    elif language == "csv":
        if shown.splitlines()[0] != came.splitlines()[0]:
            raise Differs(f"the columns are {came.splitlines()[0]}")
    elif shown.startswith("HTTP/"):
        if _head(shown) != _head(came):
            raise Differs(f"the head is {came}")
    elif not re.fullmatch(_pattern(shown), _plain(came)):
        raise Differs(f"the output is\n{came}")


def _compare_json(shown: Any, came: str) -> None:
    # An answer may come with its head.
    body = came.replace("\r", "").partition("\n\n")[2] if came.startswith("HTTP/") else came
    try:
        answer = json.loads(body)
    except json.JSONDecodeError:
        raise Differs(f"no JSON came, but\n{came}") from None
    found = [difference(shown, part) for part in (answer, *_objects_with(shown, answer))]
    if all(found):
        raise Differs(f"{found[-1]}; there came\n{body}")


def _objects_with(shown: Any, answer: Any) -> Iterator[Any]:
    """Objects inside of the answer that have all keys of the example: it may show a part of a face."""
    inner = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ()
    for value in inner:
        if isinstance(value, dict) and isinstance(shown, dict) and shown.keys() <= value.keys():
            yield {key: value[key] for key in shown}
        yield from _objects_with(shown, value)


# They are others each time.
_VOLATILE = {"request_id"}


def difference(shown: Any, came: Any, at: str = "answer") -> str | None:
    """Where two JSON values differ in more than numbers, ids and what is cut short by `...`."""
    if isinstance(shown, dict) and isinstance(came, dict):
        if shown.keys() != came.keys():
            return f"{at} has {sorted(came)}, not {sorted(shown)}"
        pairs = [(key, shown[key], came[key]) for key in shown if key not in _VOLATILE]
        return next((d for key, s, c in pairs if (d := difference(s, c, f"{at}.{key}"))), None)
    if isinstance(shown, list) and isinstance(came, list):
        if len(shown) != len(came):
            return f"{at} has {len(came)} items, not {len(shown)}"
        numbered = enumerate(zip(shown, came, strict=True))
        return next((d for i, (s, c) in numbered if (d := difference(s, c, f"{at}[{i}]"))), None)
    if isinstance(shown, str) and isinstance(came, str):
        # Which stage a deadline passes in is chance.
        same = shown == re.sub(r"(?<=passed during )\w+", shown.rpartition(" ")[2], came)
        cut = shown.endswith("...") and came.startswith(shown[:-3])
        return None if same or cut else f"{at} is {came!r}"
    if _is_number(shown) and _is_number(came):
        return None
    return None if shown is came else f"{at} is {came!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _head(text: str) -> tuple[str, set[str]]:
    """The status line and the names of the headers."""
    status, *lines = text.replace("\r", "").partition("\n\n")[0].strip().splitlines()
    return status, {line.partition(":")[0].lower() for line in lines}


def _plain(text: str) -> str:
    """Without what differs between runs: numbers, ids, the widths of tables, spaces."""
    text = re.sub(r"\b[0-9a-f]{12,}\b", "0", text)
    text = re.sub(r"\d+(?:\.\d+)?", "0", text)
    text = re.sub(r"[─━═╶╴╺╸-]{2,}", "-", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def _pattern(shown: str) -> str:
    """`...` stands for anything."""
    return ".*".join(map(re.escape, _plain(shown).split("..."))).replace(".*", "(?s:.*)")
