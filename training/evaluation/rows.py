"""The rows that a network is measured on."""

from __future__ import annotations

from training.config import RunConfig
from training.datasets.faces import Dataset, LabelledFaces
from training.rows import validation_rows

HELD_OUT = "held-out"
"""Name of a run's validation rows beside the names of test splits. Some test splits are named validation."""


def split_of(dataset: Dataset, name: str | None = None) -> str:
    """The name of a split: by default the first test split, or `HELD_OUT` without test splits.

    Raises `ValueError` when the data set has no split of this name.
    """
    names = [*dataset.tests, HELD_OUT]
    if name is not None and name not in names:
        raise ValueError(f"no split {name!r}; {dataset.name} has {', '.join(names)}")
    return name or names[0]


def rows_of(dataset: Dataset, split: str, config: RunConfig) -> LabelledFaces:
    """The rows of a split. config: of the run whose validation rows `HELD_OUT` names."""
    return validation_rows(dataset, config) if split == HELD_OUT else dataset.tests[split]
