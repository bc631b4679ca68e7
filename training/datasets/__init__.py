"""Data sets in their official formats. docs/reference/datasets.md has their sources and checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from training.datasets.affectnet import load_affectnet
from training.datasets.diffusionfer import load_diffusionfer
from training.datasets.emonet_face import load_emonet_face
from training.datasets.faces import Dataset, DatasetError, LabelledFaces
from training.datasets.fer2013 import load_fer2013
from training.datasets.ferplus import VoteRule
from training.datasets.folders import load_folder
from training.datasets.joined import joined
from training.datasets.lists import load_list
from training.datasets.prepared import load_prepared
from training.datasets.rafdb import load_rafdb

DatasetKind = Literal[
    "fer2013",
    "rafdb",
    "affectnet7",
    "affectnet8",
    "emonet_face",
    "diffusionfer",
    "folder",
    "list",
    "prepared",
]

_LOADERS: dict[DatasetKind, Callable[..., Dataset]] = {
    "fer2013": load_fer2013,
    "rafdb": load_rafdb,
    "affectnet7": partial(load_affectnet, classes=7),
    "affectnet8": partial(load_affectnet, classes=8),
    "emonet_face": load_emonet_face,
    "diffusionfer": load_diffusionfer,
    "folder": load_folder,
    "list": load_list,
    "prepared": load_prepared,
}


class DatasetSource(BaseModel):
    """One of several data sets that are joined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: DatasetKind
    root: str
    """Folder of the set, relative to the folder of the data."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often training draws a picture of this set, relative to one of a set with weight 1."""


def load(
    dataset: DatasetKind | Sequence[DatasetSource],
    folder: Path,
    *,
    skip_bad: bool = False,
    ferplus_votes: VoteRule = "all",
) -> Dataset:
    """Load one data set from its folder, or several from folders below it, and check every file.

    skip_bad: skip rows that are missing, unreadable or mislabelled, and report them in `Dataset.problems`.
    ferplus_votes: what `fer2013` makes of FER+'s votes.
    Raises `DatasetError`, which names the fault, the expected paths and the source of the data.
    """
    if isinstance(dataset, str):
        if dataset not in _LOADERS:
            raise DatasetError(f"{dataset} is no kind of data set; kinds are {', '.join(_LOADERS)}")
        options = {"votes": ferplus_votes} if dataset == "fer2013" else {}
        return _LOADERS[dataset](folder, skip_bad=skip_bad, **options)
    # The configuration in a manifest is plain dictionaries.
    sources = [DatasetSource.model_validate(each) for each in dataset]
    read = partial(load, skip_bad=skip_bad, ferplus_votes=ferplus_votes)
    return joined([(each.root, read(each.name, folder / each.root), each.weight) for each in sources])


def summary(dataset: Dataset) -> str:
    """A table of the images per emotion and split, and the data set's problems, as text."""
    splits = {"training": dataset.training, **dataset.tests}
    rows = [("", *splits)]
    counts = {name: _counts(faces, len(dataset.emotions)) for name, faces in splits.items()}
    for index, emotion in enumerate((*dataset.emotions, "none clear")):
        rows.append((emotion, *(f"{counts[name][index]:,}" for name in splits)))
    rows.append(("all", *(f"{len(faces):,}" for faces in splits.values())))
    rows.append(("distinct", *(f"{len(np.unique(faces.group)):,}" for faces in splits.values())))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]
    lines[0] = dataset.name + lines[0][len(dataset.name) :]
    return "\n".join([*lines, *dataset.problems])


def _counts(faces: LabelledFaces, emotions: int) -> list[int]:
    """Faces per emotion by majority; the last count is of faces without a majority."""
    found = [int((faces.majority == index).sum()) for index in range(emotions)]
    return [*found, len(faces) - sum(found)]
