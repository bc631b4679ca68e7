"""AffectNet (Mollahosseini et al., 2017) in both published forms."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from service.core.manifest import EMOTIONS
from training.datasets.faces import Dataset, DatasetError
from training.datasets.faults import Faults, not_found, wrong_counts
from training.datasets.files import Box, ImageEntry, load_entries

EXPRESSIONS = (
    *("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
    *("none", "uncertain", "no face"),
)
COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
)
FOLDER_SPLITS = {"train_set": "training", "val_set": "validation"}
MANUAL = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", "Manually_Annotated")
AUTOMATIC = (
    *("Automatically_Annotated_Images", "Automatically_Annotated/Automatically_Annotated_Images"),
    "Automatically_Annotated",
)
# List -> (its split, folder of the list, possible folders of its images). One list per split is read: the
# first that exists.
LISTS = {
    "training.csv": ("training", "Manually_Annotated_file_lists", MANUAL),
    "automatically_annotated.csv": ("training", "Automatically_annotated_file_list", AUTOMATIC),
    "validation.csv": ("validation", "Manually_Annotated_file_lists", MANUAL),
}
PUBLISHED_COUNTS = {
    7: {"training": 283_901, "validation": 3_500},
    8: {"training": 287_651, "validation": 4_000},
}
LICENCE = "AffectNet: its authors' licence agreement, research only, no redistribution"
SOURCE = (
    "AffectNet is handed out by its authors to professors and heads of laboratories, for research, under a "
    "signed agreement: http://mohammadmahoor.com/pages/databases/affectnet/"
)


def load_affectnet(folder: Path, classes: Literal[7, 8], *, skip_bad: bool = False) -> Dataset:
    """AffectNet with one label each: folders of cropped faces, or lists of photos from which faces are cut.

    The official validation set is the test split, because the authors do not publish their test set. Images
    without an emotion are skipped and counted, and with 7 classes also contempt.
    Raises `DatasetError` when files are missing, or bad without `skip_bad`. Other counts than the published
    ones are only reported: subsets are common.
    """
    faults = Faults(folder, skip_bad=skip_bad)
    if all((folder / name).is_dir() for name in FOLDER_SPLITS):
        labelled = _from_folders(folder, faults)
    else:
        labelled = _from_lists(folder, faults)
    served = EMOTIONS[:classes]
    others: Counter[tuple[str, str]] = Counter()
    entries = []
    for split, file, expression, box in labelled:
        if expression in served:
            entries.append(ImageEntry(split, file, EMOTIONS.index(expression), box))
        else:
            others[split, expression] += 1
    splits = load_entries(entries, folder, faults)
    problems = faults.raise_or_report()
    problems += tuple(
        f"skipped: {count} {split} images labelled {expression}"
        for (split, expression), count in others.items()
    )
    counts = {name: len(rows) for name, rows in splits.items()}
    if "training" not in splits:
        raise DatasetError(f"{folder} has no training images of {classes} emotions")
    return Dataset(
        name=f"affectnet{classes}",
        served=served,
        auxiliary=(),
        training=splits.pop("training"),
        tests=splits,
        licences=(LICENCE,),
        problems=problems + wrong_counts(counts, PUBLISHED_COUNTS[classes]),
    )


_Labelled = tuple[str, Path, str, Box | None]  # split, file, expression, box


def _from_folders(folder: Path, faults: Faults) -> Iterator[_Labelled]:
    """`<split>_set/images/<id>.jpg` with `<split>_set/annotations/<id>_exp.npy`, by id."""
    for subfolder, split in FOLDER_SPLITS.items():
        images, annotations = folder / subfolder / "images", folder / subfolder / "annotations"
        if not images.is_dir() or not annotations.is_dir():
            raise not_found("AffectNet", folder / subfolder, ("images/", "annotations/"), SOURCE)
        labels = {path.name.removesuffix("_exp.npy"): path for path in annotations.glob("*_exp.npy")}
        files = {path.stem: path for path in images.glob("*.jpg")}
        for name in sorted(labels.keys() | files.keys(), key=lambda name: (len(name), name)):
            if name not in labels:
                faults.add("images without an annotation", f"{subfolder}/images/{name}.jpg")
                continue
            expression = _annotated(labels[name])
            if expression is None:
                where = labels[name].relative_to(folder).as_posix()
                faults.add("annotations without a number from 0 to 10", where)
            else:
                yield split, images / f"{name}.jpg", expression, None


def _annotated(path: Path) -> str | None:
    try:
        # The authors' files store the number as text.
        return _expression(np.load(path, allow_pickle=False).item())
    except (OSError, ValueError, EOFError):
        return None


def _from_lists(folder: Path, faults: Faults) -> Iterator[_Labelled]:
    done: set[str] = set()
    for name, (split, home, image_folders) in LISTS.items():
        path = next((path for path in (folder / name, folder / home / name) if path.is_file()), None)
        if path is None or split in done:
            continue
        done.add(split)
        place = next((place for place in image_folders if (folder / place).is_dir()), None)
        if place is None:
            raise not_found(f"images of {name}", folder, image_folders, SOURCE)
        yield from _from_list(path, split, folder / place, faults)
    if "training" not in done:
        looked_for = [*(f"{subfolder}/" for subfolder in FOLDER_SPLITS), *LISTS]
        looked_for += [f"{home}/{name}" for name, (_, home, _) in LISTS.items()]
        raise not_found("AffectNet", folder, looked_for, SOURCE)


def _from_list(path: Path, split: str, images: Path, faults: Faults) -> Iterator[_Labelled]:
    with path.open(newline="", errors="replace") as file:
        # Some copies of validation.csv come without a header.
        columns: tuple[str, ...] = COLUMNS
        for cells in (lines := csv.reader(file)):
            if lines.line_num == 1 and COLUMNS[0] in cells:
                if missing := set(COLUMNS) - set(cells):
                    raise DatasetError(f"{path} has no column {' or '.join(sorted(missing))}")
                columns = tuple(cells)
                continue
            if not cells:
                continue
            row = dict(zip(columns, cells, strict=False))
            where = f"{path.name} line {lines.line_num}"
            try:
                expression = _expression(row["expression"])
                # Rows without a face have no box either.
                box = _box(row) if expression in EMOTIONS else None
                yield split, images / row["subDirectory_filePath"], expression, box
            except (KeyError, ValueError) as error:
                faults.add("malformed rows", f"{where} ({error})")


def _expression(number: object) -> str:
    """The name of an expression. Raises `ValueError` unless `number` is a whole number from 0 to 10."""
    found = int(str(number))
    if not 0 <= found < len(EXPRESSIONS):
        raise ValueError(f"expression {found} is not from 0 to 10")
    return EXPRESSIONS[found]


def _box(row: dict[str, str]) -> Box:
    left, top, width, height = (int(row[column]) for column in COLUMNS[1:5])
    if width <= 0 or height <= 0:
        raise ValueError(f"a face of {width}x{height} px")
    return left, top, left + width, top + height
