"""Lists of pictures with their labels: CSV files, as most data sets have them."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from training.datasets.faces import Dataset, DatasetError
from training.datasets.faults import Faults, not_found
from training.datasets.files import Box, ImageEntry, make_dataset
from training.datasets.labels import emotion_of, read_label_map

LISTS = {"train.csv": "training", "test.csv": "test", "val.csv": "val"}
COLUMNS = ("image", "label")
BOX_COLUMNS = ("left", "top", "width", "height")
LAYOUT = "A list has the columns image and label, and left, top, width and height where it has boxes of faces"


def load_list(folder: Path, *, skip_bad: bool = False) -> Dataset:
    """`train.csv` with optional `test.csv` and `val.csv`: image (a path below `folder`), label, box if any.

    Raises `DatasetError` for a missing list or column, an unknown label, and bad rows unless `skip_bad`.
    """
    faults = Faults(folder, skip_bad=skip_bad)
    if not (folder / "train.csv").is_file():
        raise not_found("list of pictures", folder, LISTS, LAYOUT)
    own, entries = read_label_map(folder), []
    for name, split in LISTS.items():
        if not (folder / name).is_file():
            continue
        for place, row in read_rows(folder / name, COLUMNS):
            label = row["label"]
            try:
                box = read_box(row, BOX_COLUMNS) if BOX_COLUMNS[0] in row else None
            except (KeyError, ValueError) as error:
                faults.add("malformed rows", f"{place} ({error})")
                continue
            emotion = emotion_of(label, own, f"the label {label!r} of {place}")
            if emotion is None:
                faults.skip(f"{split} images labelled {label}")
            else:
                entries.append(ImageEntry(split, folder / row["image"], emotion, box))
    if len({entry.box is None for entry in entries}) > 1:
        raise DatasetError(f"{folder}: either all lists have boxes of faces, or none. {LAYOUT}")
    return make_dataset("list", folder, entries, faults)


def read_rows(
    path: Path, columns: Sequence[str], *, without_header: Sequence[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """(place such as "train.csv line 2", cells by column in lower case) of every row of a CSV file.

    Cells that a row lacks are empty. path: may end in .gz. columns: what the file must have, in any case.
    without_header: all columns of a file whose first line may be a row.
    Raises `DatasetError` when a column is missing or the file is damaged.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig", errors="replace") as file:
            lines = csv.reader(file, skipinitialspace=True)
            header = [cell.strip().lower() for cell in next(lines, [])]
            if without_header is not None and without_header[0].lower() not in header:
                header = [column.lower() for column in without_header]
                file.seek(0)
                lines = csv.reader(file, skipinitialspace=True)
            if missing := [column for column in columns if column.lower() not in header]:
                raise DatasetError(f"{path} has no column {' or '.join(sorted(missing))}")
            for cells in lines:
                if cells:
                    row = dict(zip_longest(header, cells[: len(header)], fillvalue=""))
                    yield f"{path.name} line {lines.line_num}", row
    except (EOFError, csv.Error, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path} is cut short or damaged: {error}") from error


def read_box(row: dict[str, str], columns: Sequence[str]) -> Box:
    """columns: of left, top, width and height in px. Raises `KeyError` or `ValueError`."""
    left, top, width, height = (int(row[column]) for column in columns)
    if width <= 0 or height <= 0:
        raise ValueError(f"a face of {width}x{height} px")
    return left, top, left + width, top + height
