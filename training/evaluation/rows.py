"""The data set and the rows that a network is measured on."""

from __future__ import annotations

from pathlib import Path

from training.config import RunConfig
from training.datasets import load
from training.datasets.faces import Dataset, LabelledFaces
from training.rows import refuse_other_emotions, validation_rows

HELD_OUT = "held-out"
"""Name of a run's validation rows beside the names of test splits. Some test splits are named validation."""


def dataset_of(
    config: RunConfig,
    emotions: tuple[str, ...],
    data: Path,
    kind: str | None,
    *,
    skip_bad: bool,
    network: str = "the network",
) -> Dataset:
    """The data set of a run, or one of another kind, in the folder `data`.

    emotions: what the network of the run answers. network: its name in messages.
    Raises `ValueError` when the data set has other emotions.
    """
    dataset = load(kind or config.dataset, data, skip_bad=skip_bad, ferplus_votes=config.ferplus_votes)
    refuse_other_emotions(emotions, dataset, network)
    return dataset


def split_of(dataset: Dataset, name: str | None = None) -> str:
    """The name of a split: by default the first test split, or `HELD_OUT` without test splits.

    Raises `ValueError` when the data set has no split of this name.
    """
    names = [*dataset.tests, HELD_OUT]
    if name is not None and name not in names:
        raise ValueError(f"no split {name!r}; {dataset.name} has {', '.join(names)}")
    return name or names[0]


def rows_of(dataset: Dataset, split: str, config: RunConfig) -> LabelledFaces:
    """The rows of a split. config: of the run whose validation rows `HELD_OUT` names.

    Raises `ValueError` when no row has a label.
    """
    rows = validation_rows(dataset, config) if split == HELD_OUT else dataset.tests[split]
    if not (rows.majority >= 0).any():
        raise ValueError(f"{split} of {dataset.name} has no rows with labels")
    return rows
