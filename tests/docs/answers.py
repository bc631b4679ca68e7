"""Compares the answer that a block shows with the actual answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from tests.docs.formatting import as_json


class Differs(Exception):
    """The shown and the actual answer differ. The message says where."""


def compare(language: str, shown: str, actual: str) -> None:
    if language == "json":
        _compare_json(json.loads(shown), actual)
    elif language == "csv":
        if shown.splitlines()[0] != actual.splitlines()[0]:
            raise Differs(f"the columns are {actual.splitlines()[0]}")
    elif shown.startswith("HTTP/"):
        if _head(shown) != _head(actual):
            raise Differs(f"the head is {actual}")
    elif not re.fullmatch(_pattern(_plain(shown)), _plain(actual)):
        raise Differs(f"the output is\n{actual}")


def refresh(language: str, shown: str, actual: str) -> str:
    """The block with the actual answer, or as it is if only times, ids and text behind `...` differ."""
    if language == "json":
        before = json.loads(shown)
        parts = _parts(before, _answer(actual))
        similar = [part for part in parts if _keys(part) == _keys(before)] or parts
        part = next((part for part in similar if not difference(before, part)), similar[0])
        after = _merged(before, part)
        return shown if _close(before, after) else as_json(after) + "\n"
    if language == "csv":
        rows = actual.splitlines()[: len(shown.splitlines())]
        return shown if _steady(shown) == _steady("\n".join(rows)) else "\n".join(rows) + "\n"
    if shown.startswith("HTTP/"):
        head = actual.replace("\r", "").partition("\n\n")[0].strip() + "\n"
        return shown if _head(shown) == _head(actual) else head
    return shown if re.fullmatch(_pattern(_steady(shown)), _steady(actual)) else f"{actual.strip()}\n"


def _answer(actual: str) -> Any:
    # An answer may include its HTTP head.
    body = actual.replace("\r", "").partition("\n\n")[2] if actual.startswith("HTTP/") else actual
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        raise Differs(f"no JSON came, but\n{actual}") from None


def _parts(shown: Any, answer: Any) -> list[Any]:
    return [answer, *_objects_with(shown, answer)]


def _keys(value: Any) -> Any:
    return value.keys() if isinstance(value, dict) else type(value)


def _compare_json(shown: Any, actual: str) -> None:
    answer = _answer(actual)
    found = [difference(shown, part) for part in _parts(shown, answer)]
    if all(found):
        raise Differs(f"{found[-1]}; the answer is\n{json.dumps(answer)}")


def _close(shown: Any, actual: Any) -> bool:
    """Whether the values differ only in the last digits of numbers, as between two machines."""
    if isinstance(shown, dict) and isinstance(actual, dict):
        return shown.keys() == actual.keys() and all(_close(shown[key], actual[key]) for key in shown)
    if isinstance(shown, list) and isinstance(actual, list):
        return len(shown) == len(actual) and all(map(_close, shown, actual))
    if _is_number(shown) and _is_number(actual):
        return math.isclose(shown, actual, rel_tol=1e-3, abs_tol=1e-5)
    return bool(shown == actual)


def _merged(shown: Any, actual: Any) -> Any:
    """The actual value, with the ids and abbreviations of the shown value."""
    if isinstance(shown, dict) and isinstance(actual, dict):
        return {
            key: shown[key] if key in _VOLATILE & shown.keys() else _merged(shown.get(key), value)
            for key, value in actual.items()
        }
    if isinstance(shown, list) and isinstance(actual, list):
        return [_merged(shown[i] if i < len(shown) else None, value) for i, value in enumerate(actual)]
    if isinstance(shown, str) and isinstance(actual, str):
        if difference(shown, actual) is None:
            return shown
        return f"{actual[: len(shown) - 3]}..." if shown.endswith("...") else actual
    return actual


def _objects_with(shown: Any, answer: Any) -> Iterator[Any]:
    """The objects in the answer with all keys of the example, which may show a part of a face."""
    inner = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ()
    for value in inner:
        if isinstance(value, dict) and isinstance(shown, dict) and shown.keys() <= value.keys():
            yield {key: value[key] for key in shown}
        yield from _objects_with(shown, value)


# Keys whose values are new in each answer.
_VOLATILE = {"request_id", "id", "created_at"}


def difference(shown: Any, actual: Any, at: str = "answer") -> str | None:
    """The first difference of two JSON values, except numbers, ids and the text behind `...`."""
    if isinstance(shown, dict) and isinstance(actual, dict):
        if shown.keys() != actual.keys():
            return f"{at} has {sorted(actual)}, not {sorted(shown)}"
        pairs = [(key, shown[key], actual[key]) for key in shown if key not in _VOLATILE]
        return next((d for key, s, c in pairs if (d := difference(s, c, f"{at}.{key}"))), None)
    if isinstance(shown, list) and isinstance(actual, list):
        if len(shown) != len(actual):
            return f"{at} has {len(actual)} items, not {len(shown)}"
        numbered = enumerate(zip(shown, actual, strict=True))
        return next((d for i, (s, c) in numbered if (d := difference(s, c, f"{at}[{i}]"))), None)
    if isinstance(shown, str) and isinstance(actual, str):
        # The stage in which a deadline passes is random.
        same = shown == re.sub(r"(?<=passed during )\w+", shown.rpartition(" ")[2], actual)
        cut = shown.endswith("...") and actual.startswith(shown[:-3])
        return None if same or cut else f"{at} is {actual!r}"
    if _is_number(shown) and _is_number(actual):
        return None
    return None if shown is actual else f"{at} is {actual!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _head(text: str) -> tuple[str, set[str]]:
    """The status line and the names of the headers."""
    status, *lines = text.replace("\r", "").partition("\n\n")[0].strip().splitlines()
    return status, {line.partition(":")[0].lower() for line in lines}


def _steady(text: str) -> str:
    """The text without the times, ids and ports that differ between two runs of the same version."""
    text = re.sub(r"\b[0-9a-f]{32}\b|\d{4}-\d\d-\d\dT[\d:.+]+Z?", "0", text)
    text = re.sub(r"\d+(?:\.\d+)?(?= (?:ms|s|images/s)\b)|(?<=127\.0\.0\.1:)\d+", "0", text)
    return _without_layout(text)


def _plain(text: str) -> str:
    """The text without the numbers, ids, table widths and spaces that differ between runs."""
    text = re.sub(r"\b[0-9a-f]{12,}\b", "0", text)
    return _without_layout(re.sub(r"\d+(?:\.\d+)?", "0", text))


def _without_layout(text: str) -> str:
    text = re.sub(r"[─━═╶╴╺╸-]{2,}", "-", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def _pattern(shown: str) -> str:
    """A regular expression of the shown text, in which `...` matches any text."""
    return "(?s:.*)".join(map(re.escape, shown.split("...")))
