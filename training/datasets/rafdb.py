"""RAF-DB, the basic emotions (Li et al., 2017), in its published form and in Kaggle's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from service.core.manifest import EMOTIONS
from training.datasets.faces import Dataset
from training.datasets.faults import Faults, not_found
from training.datasets.files import ImageEntry, make_dataset
from training.datasets.lists import read_rows

LIST = Path("EmoLabel/list_patition_label.txt")  # the authors' spelling
IMAGES = Path("Image/aligned")
KAGGLE_LISTS = {"train_labels.csv": "train", "test_labels.csv": "test"}
KAGGLE_IMAGES = Path("DATASET")
LABELS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")  # 1 to 7
PUBLISHED_COUNTS = {"train": 12_271, "test": 3_068}
LICENCE = "RAF-DB: its authors' terms, non-commercial research only, no redistribution"
SOURCE = (
    "RAF-DB is handed out by its authors for non-commercial research, under a signed agreement: "
    "http://whdeng.cn/RAF/model1.html"
)


def load_rafdb(folder: Path, *, skip_bad: bool = False) -> Dataset:
    """RAF-DB from the authors' `basic` folder, the folder above or Kaggle's: seven emotions, one label each.

    Raises `DatasetError` when files are missing, or bad without `skip_bad`. Other counts than the published
    ones are only reported: subsets are common.
    """
    faults = Faults(folder, skip_bad=skip_bad)
    root = next((root for root in (folder, folder / "basic") if (root / LIST).is_file()), folder)
    if (root / LIST).is_file():
        rows, images = _official(root, faults), IMAGES
    elif (folder / next(iter(KAGGLE_LISTS))).is_file():
        rows, images = _kaggle(folder), KAGGLE_IMAGES
    else:
        raise not_found("RAF-DB", folder, (LIST, "basic" / LIST, *map(Path, KAGGLE_LISTS)), SOURCE)
    if not (root / images).is_dir():
        raise not_found("aligned images of RAF-DB", root, [images], SOURCE)
    entries = list(_checked(rows, root / images, faults))
    there = sum(path.is_file() for path in (root / images).rglob("*"))
    if extra := there - sum(entry.file.is_file() for entry in entries):
        faults.note(f"not used: {extra} files in {images} that the list does not name")
    return make_dataset(
        "rafdb",
        root,
        entries,
        faults,
        training="train",
        emotions=EMOTIONS[:7],
        licence=LICENCE,
        published=PUBLISHED_COUNTS,
    )


_Row = tuple[str, str, str, str]  # place, split, image, label


def _official(root: Path, faults: Faults) -> Iterator[_Row]:
    for number, line in enumerate((root / LIST).read_text(errors="replace").splitlines(), start=1):
        place = f"{LIST.name} line {number} ({line.strip()})"
        match = re.fullmatch(r"((train|test)_\w+)\.jpg\s+(\d+)", line.strip())
        if match is not None:
            yield place, match[2], f"{match[1]}_aligned.jpg", match[3]
        elif line.strip():
            faults.add("lines that are not 'train_NUMBER.jpg LABEL' or 'test_NUMBER.jpg LABEL'", place)


def _kaggle(root: Path) -> Iterator[_Row]:
    """Images are in `DATASET/<split>/<label>/`."""
    for name, split in KAGGLE_LISTS.items():
        if (root / name).is_file():
            for place, row in read_rows(root / name, ("image", "label")):
                label = row["label"].strip()
                yield f"{place} ({label})", split, f"{split}/{label}/{row['image'].strip()}", label


def _checked(rows: Iterator[_Row], images: Path, faults: Faults) -> Iterator[ImageEntry]:
    seen = set()
    for place, split, image, label in rows:
        if label not in map(str, range(1, len(LABELS) + 1)):
            faults.add("labels that are not from 1 to 7", place)
        elif image in seen:
            faults.add("images listed twice", place)
        else:
            seen.add(image)
            yield ImageEntry(split, images / image, EMOTIONS.index(LABELS[int(label) - 1]))
