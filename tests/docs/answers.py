"""Whether a block that shows an answer shows the one that came."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from tests.docs.formatting import as_json


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
    elif not re.fullmatch(_pattern(_plain(shown)), _plain(came)):
        raise Differs(f"the output is\n{came}")


def refresh(language: str, shown: str, came: str) -> str:
    """The block with the answer of today. It stays where only times, ids and what `...` cuts differ."""
    if language == "json":
        before = json.loads(shown)
        parts = _parts(before, _answer(came))
        similar = [part for part in parts if _keys(part) == _keys(before)] or parts
        part = next((part for part in similar if not difference(before, part)), similar[0])
        after = _merged(before, part)
        return shown if _close(before, after) else as_json(after) + "\n"
    if language == "csv":
        rows = came.splitlines()[: len(shown.splitlines())]
        return shown if _steady(shown) == _steady("\n".join(rows)) else "\n".join(rows) + "\n"
    if shown.startswith("HTTP/"):
        head = came.replace("\r", "").partition("\n\n")[0].strip() + "\n"
        return shown if _head(shown) == _head(came) else head
    return shown if re.fullmatch(_pattern(_steady(shown)), _steady(came)) else f"{came.strip()}\n"


def _answer(came: str) -> Any:
    # An answer may come with its head.
    body = came.replace("\r", "").partition("\n\n")[2] if came.startswith("HTTP/") else came
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        raise Differs(f"no JSON came, but\n{came}") from None


def _parts(shown: Any, answer: Any) -> list[Any]:
    return [answer, *_objects_with(shown, answer)]


def _keys(value: Any) -> Any:
    return value.keys() if isinstance(value, dict) else type(value)


def _compare_json(shown: Any, came: str) -> None:
    answer = _answer(came)
    found = [difference(shown, part) for part in _parts(shown, answer)]
    if all(found):
        raise Differs(f"{found[-1]}; there came\n{json.dumps(answer)}")


def _close(shown: Any, came: Any) -> bool:
    """Whether nothing differs but the last digits, as it may between two machines."""
    if isinstance(shown, dict) and isinstance(came, dict):
        return shown.keys() == came.keys() and all(_close(shown[key], came[key]) for key in shown)
    if isinstance(shown, list) and isinstance(came, list):
        return len(shown) == len(came) and all(map(_close, shown, came))
    if _is_number(shown) and _is_number(came):
        return math.isclose(shown, came, rel_tol=1e-3, abs_tol=1e-5)
    return bool(shown == came)


def _merged(shown: Any, came: Any) -> Any:
    """What came, with the ids and the cuts that are shown."""
    if isinstance(shown, dict) and isinstance(came, dict):
        return {
            key: shown[key] if key in _VOLATILE & shown.keys() else _merged(shown.get(key), value)
            for key, value in came.items()
        }
    if isinstance(shown, list) and isinstance(came, list):
        return [_merged(shown[i] if i < len(shown) else None, value) for i, value in enumerate(came)]
    if isinstance(shown, str) and isinstance(came, str):
        if difference(shown, came) is None:
            return shown
        return f"{came[: len(shown) - 3]}..." if shown.endswith("...") else came
    return came


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


def _steady(text: str) -> str:
    """Without what differs between two runs of the same version."""
    text = re.sub(r"\b[0-9a-f]{32}\b|\d{4}-\d\d-\d\dT[\d:.+]+Z?", "0", text)
    text = re.sub(r"\d+(?:\.\d+)?(?= (?:ms|s|images/s)\b)|(?<=127\.0\.0\.1:)\d+", "0", text)
    return _ruled(text)


def _plain(text: str) -> str:
    """Without what differs between runs: numbers, ids, the widths of tables, spaces."""
    text = re.sub(r"\b[0-9a-f]{12,}\b", "0", text)
    return _ruled(re.sub(r"\d+(?:\.\d+)?", "0", text))


def _ruled(text: str) -> str:
    text = re.sub(r"[─━═╶╴╺╸-]{2,}", "-", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def _pattern(shown: str) -> str:
    """`...` stands for anything."""
    return "(?s:.*)".join(map(re.escape, shown.split("...")))
