"""Several data sets as one, for training on all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.datasets.faces import ROW_ALIGNED, Bools, Bytes, Dataset, Ints, LabelledFaces, Pictures


@dataclass(frozen=True)
class JoinedPictures:
    """Pictures of several sets. part, row: int64 [N], the set of each picture and its row in that set."""

    parts: tuple[Pictures, ...]
    part: Ints
    row: Ints

    def __len__(self) -> int:
        return len(self.row)

    def read(self, rows: Ints, *, size: int, channels: int) -> Bytes:
        images = np.empty((len(rows), channels, size, size), np.uint8)
        for number, pictures in enumerate(self.parts):
            mine = self.part[rows] == number
            if mine.any():
                images[mine] = pictures.read(self.row[rows[mine]], size=size, channels=channels)
        return images

    def original(self, row: int) -> tuple[bytes | Bytes, Ints | None]:
        pictures: Pictures = self.parts[self.part[row]]
        return pictures.original(int(self.row[row]))

    def choose(self, rows: Bools | Ints) -> JoinedPictures:
        return replace(self, part=self.part[rows], row=self.row[rows])


def concatenated(parts: Sequence[LabelledFaces]) -> LabelledFaces:
    """The faces of all parts, in their order. Groups of different parts must differ."""
    if len(parts) == 1:
        return parts[0]
    weighted = any(part.weights is not None for part in parts)
    return LabelledFaces(
        JoinedPictures(
            tuple(part.pictures for part in parts),
            part=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
            row=np.concatenate([np.arange(len(part)) for part in parts]),
        ),
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in ROW_ALIGNED},
        votes=None
        if all(part.votes is None for part in parts)
        else np.concatenate([part.all_votes for part in parts]),
        weights=np.concatenate(
            [np.ones(len(part), np.float32) if part.weights is None else part.weights for part in parts]
        )
        if weighted
        else None,
    )


def joined(sets: Sequence[tuple[str, Dataset, float]]) -> Dataset:
    """One data set of several. sets: the folder, the data set and the weight of each.

    Names of faces and of test splits begin with the folder. The label head learns from the sets that have
    labels for it.
    """
    label_emotions = max((dataset.label_emotions for _, dataset, _ in sets), key=len)
    parts: list[Dataset] = []
    groups = 0
    for folder, dataset, weight in sets:
        parts.append(_part(folder, dataset, weight, groups, has_label_emotions=bool(label_emotions)))
        groups += 1 + max(rows.group.max(initial=-1) for rows in (dataset.training, *dataset.tests.values()))
    return Dataset(
        name="+".join(part.name for part in parts),
        emotions=max((part.emotions for part in parts), key=len),
        label_emotions=label_emotions,
        training=concatenated([part.training for part in parts]),
        tests={name: rows for part in parts for name, rows in part.tests.items()},
        licences=tuple(dict.fromkeys(licence for part in parts for licence in part.licences)),
        problems=tuple(problem for part in parts for problem in part.problems),
        parts=tuple(parts),
    )


def _part(folder: str, dataset: Dataset, weight: float, groups: int, *, has_label_emotions: bool) -> Dataset:
    """groups: number of groups of the sets before. Copies across sets are searched when rows are split."""

    def renamed(rows: LabelledFaces) -> LabelledFaces:
        unused = has_label_emotions and not dataset.label_emotions
        return replace(
            rows,
            names=np.array([f"{folder}/{name}" for name in rows.names], np.str_),
            labels=np.full_like(rows.labels, -1) if unused else rows.labels,
            group=rows.group + groups,
            weights=np.full(len(rows), weight, np.float32),
            near=None,  # near copies in other sets are not known
        )

    return replace(
        dataset,
        training=renamed(dataset.training),
        tests={f"{folder}/{name}": renamed(rows) for name, rows in dataset.tests.items()},
        problems=tuple(f"{folder}: {problem}" for problem in dataset.problems),
    )
