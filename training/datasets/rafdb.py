"""RAF-DB, the basic emotions (Li et al., 2017), in its published form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from service.core.manifest import EMOTIONS
from training.datasets.faces import Dataset, DatasetError
from training.datasets.faults import Faults, not_found, wrong_counts
from training.datasets.files import ImageEntry, load_entries

LIST = Path("EmoLabel/list_patition_label.txt")  # the authors' spelling
IMAGES = Path("Image/aligned")
LABELS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")  # 1 to 7
PUBLISHED_COUNTS = {"train": 12_271, "test": 3_068}
LICENCE = "RAF-DB: its authors' terms, non-commercial research only, no redistribution"
SOURCE = (
    "RAF-DB is handed out by its authors for non-commercial research, under a signed agreement: "
    "http://whdeng.cn/RAF/model1.html"
)


def load_rafdb(folder: Path, *, skip_bad: bool = False) -> Dataset:
    """RAF-DB from its `basic` folder or the folder above: aligned images, seven emotions, one label each.

    Raises `DatasetError` when files are missing, or bad without `skip_bad`. Other counts than the published
    ones are only reported: subsets are common.
    """
    root = next((root for root in (folder, folder / "basic") if (root / LIST).is_file()), None)
    if root is None:
        raise not_found("RAF-DB", folder, (LIST, "basic" / LIST), SOURCE)
    if not (root / IMAGES).is_dir():
        raise not_found("aligned images of RAF-DB", root, [IMAGES], SOURCE)
    faults = Faults(folder, skip_bad=skip_bad)
    entries = list(_entries(root, faults))
    splits = load_entries(entries, root, faults)
    problems = faults.raise_or_report() + wrong_counts(
        {name: len(rows) for name, rows in splits.items()}, PUBLISHED_COUNTS
    )
    if extra := len({path.name for path in (root / IMAGES).iterdir()} - {row.file.name for row in entries}):
        problems += (f"not used: {extra} files in {IMAGES} that {LIST.name} does not list",)
    if "train" not in splits:
        raise DatasetError(f"{root / LIST} lists no training images")
    return Dataset(
        name="rafdb",
        served=EMOTIONS[:7],
        auxiliary=(),
        training=splits.pop("train"),
        tests=splits,
        licences=(LICENCE,),
        problems=problems,
    )


def _entries(root: Path, faults: Faults) -> Iterator[ImageEntry]:
    seen = set()
    for number, line in enumerate((root / LIST).read_text(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{LIST.name} line {number} ({line.strip()})"
        match = re.fullmatch(r"((train|test)_\w+)\.jpg\s+(\d+)", line.strip())
        if match is None:
            faults.add("lines that are not 'train_NUMBER.jpg LABEL' or 'test_NUMBER.jpg LABEL'", where)
            continue
        name, split, label = match.groups()
        if not 1 <= int(label) <= len(LABELS):
            faults.add("labels that are not from 1 to 7", where)
        elif name in seen:
            faults.add("images listed twice", where)
        else:
            seen.add(name)
            emotion = EMOTIONS.index(LABELS[int(label) - 1])
            yield ImageEntry(split, root / IMAGES / f"{name}_aligned.jpg", emotion)
