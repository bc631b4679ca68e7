"""Faults of a data set: refused before training starts, or skipped and counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from training.datasets.faces import DatasetError

NAMED = 5
MAX_SHOWN = 200


class Faults:
    """Unusable rows by kind of fault. All rows are counted, and the first few are named.

    Rows that the data set or the user skips on purpose are no faults, but are counted, too.
    """

    def __init__(self, folder: Path, *, skip_bad: bool) -> None:
        self._folder = folder
        self._skip_bad = skip_bad
        self._found: defaultdict[str, list[str]] = defaultdict(list)
        self._skipped: Counter[str] = Counter()
        self._notes: list[str] = []

    def add(self, kind: str, where: str) -> None:
        """kind: a plural, such as "missing files"; where: the file or the line."""
        # One line of a damaged file may be the whole file.
        self._found[kind].append(where if len(where) <= MAX_SHOWN else f"{where[:MAX_SHOWN]}...")

    def skip(self, what: str) -> None:
        """Count a row that is skipped on purpose. what: a plural, such as "images labelled none"."""
        self._skipped[what] += 1

    def note(self, sentence: str) -> None:
        """Report something that is no fault of a row."""
        self._notes.append(sentence)

    def raise_or_report(self) -> tuple[str, ...]:
        """One sentence per kind of skipped rows, then the notes.

        Raises `DatasetError` for bad rows unless `skip_bad`.
        """
        sentences = [f"{kind} ({len(places)}): {_first(places)}" for kind, places in self._found.items()]
        if sentences and not self._skip_bad:
            raise DatasetError(
                f"{self._folder} has {'; '.join(sentences)}. Fix them, or skip them with --skip-bad"
            )
        sentences += [f"{count} {what}" for what, count in self._skipped.items()]
        return (*(f"skipped: {sentence}" for sentence in sentences), *self._notes)


def not_found(what: str, folder: Path, looked_for: Iterable[Path | str], source: str) -> DatasetError:
    """The error that says what was looked for in a data set's folder, and where a user gets it."""
    return DatasetError(f"no {what} in {folder}: looked for {', '.join(map(str, looked_for))}. {source}")


def wrong_counts(found: Mapping[str, int], published: Mapping[str, int]) -> tuple[str, ...]:
    """One sentence per split whose number of images differs from the published number."""
    return tuple(
        f"{split} has {found.get(split, 0)} images; published: {published[split]}"
        for split in published
        if found.get(split, 0) != published[split]
    )


def _first(places: list[str]) -> str:
    more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    return ", ".join(places[:NAMED]) + more
