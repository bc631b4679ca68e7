"""Data sets in their official formats. docs/reference/datasets.md has their sources and checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from training.datasets.affectnet import load_affectnet
from training.datasets.diffusionfer import load_diffusionfer
from training.datasets.emonet_face import load_emonet_face
from training.datasets.faces import Dataset, DatasetError
from training.datasets.fer2013 import load_fer2013
from training.datasets.ferplus import VoteRule
from training.datasets.folders import load_folder
from training.datasets.joined import joined
from training.datasets.lists import load_list
from training.datasets.prepared import load_prepared
from training.datasets.rafdb import load_rafdb

LOADERS: dict[str, Callable[..., Dataset]] = {
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


def _known(kind: str) -> str:
    if kind not in LOADERS:
        raise DatasetError(f"{kind} is no kind of data set; kinds are {', '.join(LOADERS)}")
    return kind


DatasetKind = Annotated[str, AfterValidator(_known)]


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
        options = {"votes": ferplus_votes} if dataset == "fer2013" else {}
        return LOADERS[_known(dataset)](folder, skip_bad=skip_bad, **options)
    # The configuration in a manifest is plain dictionaries.
    sources = [DatasetSource.model_validate(each) for each in dataset]
    read = partial(load, skip_bad=skip_bad, ferplus_votes=ferplus_votes)
    return joined([(each.root, read(each.name, folder / each.root), each.weight) for each in sources])


def summary(dataset: Dataset) -> str:
    """A table of the images per emotion and split, and the data set's problems, as text."""
    splits = {"training": dataset.training, **dataset.tests}
    counted = [(emotion, index) for index, emotion in enumerate(dataset.emotions)] + [("none clear", -1)]
    rows = [(dataset.name, *splits)]
    for emotion, index in counted:
        rows.append((emotion, *(f"{(faces.majority == index).sum():,}" for faces in splits.values())))
    rows.append(("all", *(f"{len(faces):,}" for faces in splits.values())))
    rows.append(("distinct", *(f"{len(np.unique(faces.group)):,}" for faces in splits.values())))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([*lines, *dataset.problems])
