"""Faces that `expressnet prepare` has cropped: one picture per face, and a line of `faces.jsonl` for each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.faces import Dataset, DatasetError
from training.datasets.faults import Faults, not_found
from training.datasets.files import ImageEntry, load_entries

CARD = "card.json"
JOURNAL = "faces.jsonl"
TRAINING = "training"


def load_prepared(folder: Path, *, skip_bad: bool = False) -> Dataset:
    """Load a finished folder of `expressnet prepare`.

    Raises `DatasetError` when it is not finished or a picture is missing or bad, unless `skip_bad`.
    """
    if not (folder / CARD).is_file():
        raise not_found("prepared faces", folder, (CARD,), "`expressnet prepare` writes them and can resume")
    return read_prepared(folder, json.loads((folder / CARD).read_text()), skip_bad=skip_bad)


def read_prepared(folder: Path, card: dict[str, Any], *, skip_bad: bool = False) -> Dataset:
    """card: has the name, the emotions and the licences of the data set."""
    faults = Faults(folder, skip_bad=skip_bad)
    lines = {line["image"]: line for line in read_journal(folder / JOURNAL)[1] if line["image"]}
    entries = [ImageEntry(line["split"], folder / image, line["majority"]) for image, line in lines.items()]
    splits = load_entries(entries, folder, faults)
    for split, rows in splits.items():
        written = [lines[name] for name in rows.names.tolist()]
        splits[split] = replace(
            rows,
            labels=np.array([line["label"] for line in written], np.int64),
            distributions=np.array([line["distribution"] for line in written], np.float32),
        )
    problems = faults.raise_or_report()
    if TRAINING not in splits:
        raise DatasetError(f"{folder} has no training pictures")
    return Dataset(
        name=card["dataset"],
        emotions=tuple(card["main_emotions"]),
        label_emotions=tuple(card["label_emotions"]),
        training=splits.pop(TRAINING),
        tests=splits,
        licences=tuple(card["licences"]),
        problems=problems,
    )


def read_journal(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The options of the preparation, and one entry for each picture of the data set so far, in its order.

    An incomplete last line is removed from the file.
    """
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        with path.open("r+b") as file:
            file.truncate(complete)
    options, *lines = map(json.loads, content[:complete].splitlines() or [b"{}"])
    return options, lines
