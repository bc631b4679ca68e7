"""FER+ (Barsoum et al., 2016): ten annotators' votes on the images of FER-2013."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.core.manifest import EMOTIONS
from training.datasets.faces import DatasetError, Ints
from training.datasets.faults import Faults
from training.datasets.lists import read_rows

FILE = "fer2013new.csv"
COLUMNS = (*EMOTIONS, "unknown", "NF")  # FER+ has our emotions in our order
LICENCE = "FER+ votes: Microsoft, MIT"
# Aligned votes agree with 68 % of the labels, votes on other images with about a fifth.
MIN_AGREEMENT = 0.3
MAX_EMOTIONS = 3

VoteRule = Literal["all", "published", "none"]


def vote_labels(votes: Ints, *, published: bool = False) -> tuple[NDArray[np.float32], Ints]:
    """FER+ votes [N,10] (eight emotions, unknown, not a face) -> (distributions [N,8], majority [N]).

    A single vote for an answer is dropped as an outlier. A majority needs more than half of the remaining
    votes, as in the authors' code. A distribution is the shares of the emotions. It is zero unless these have
    more than half of the remaining votes. published: take only the leading emotions, as the authors' code.
    """
    kept = np.where(votes > 1, votes, 0)
    total = kept.sum(axis=1, keepdims=True)
    emotions = _leading(kept) if published else kept[:, : len(EMOTIONS)]
    usable = 2 * emotions.sum(axis=1) > total[:, 0]
    if published:
        usable &= (emotions > 0).sum(axis=1) <= MAX_EMOTIONS
    share = emotions / np.maximum(emotions.sum(axis=1, keepdims=True), 1)
    distributions = np.where(usable[:, None], share, 0).astype(np.float32)
    first = kept.argmax(axis=1)
    clear = (2 * kept.max(axis=1) > total[:, 0]) & (first < len(EMOTIONS))
    return distributions, np.where(clear, first, -1).astype(np.int64)


def _leading(kept: Ints) -> Ints:
    """Votes [N,10] -> those of the leading emotions [N,8], as `_process_data` of the authors' ferplus.py.

    Answers are taken from the most to the least votes, all with equally many votes at once. This ends when
    the taken answers have three quarters of the votes, or are three, or include unknown or not-a-face.
    """
    emotions = kept[:, : len(EMOTIONS)]
    taken = np.zeros_like(emotions)
    going = np.ones(len(kept), np.bool_)
    for level in np.unique(kept[kept > 0])[::-1]:
        going &= 4 * taken.sum(axis=1) < 3 * kept.sum(axis=1)
        going &= (taken > 0).sum(axis=1) < MAX_EMOTIONS
        taken = np.where(going[:, None] & (emotions == level), level, taken)
        going &= ~(kept[:, len(EMOTIONS) :] == level).any(axis=1)
    return taken


def read_votes(path: Path, usages: Sequence[str | None], labels: Ints, faults: Faults) -> Ints:
    """Votes int64 [N,10] of N images. A malformed row is added to `faults`, and its votes are -1.

    usages: Usage of each image, None if unknown; labels: int64 [N] into `EMOTIONS`, -1 if unknown.
    Raises `DatasetError` when the votes are not row-aligned with the images.
    """
    found: list[str] = []
    votes: list[list[int]] = []
    for place, row in read_rows(path, ("Usage", *COLUMNS)):
        found.append(row["usage"])
        try:
            votes.append([int(row[column.lower()]) for column in COLUMNS])
        except ValueError as error:
            faults.add("malformed votes", f"{place} ({error})")
            votes.append([-1] * len(COLUMNS))
    # Rows are paired by position: FER+ gives no name to images without a face.
    pairs = zip(found, usages, strict=False)
    if len(found) != len(usages) or any(b is not None and a != b for a, b in pairs):
        raise DatasetError(f"{path.name} is not row-aligned with the images: their Usage columns differ")
    answer = np.array(votes, np.int64).reshape(-1, len(COLUMNS))
    majority = vote_labels(answer)[1]
    both = (majority >= 0) & (labels >= 0)
    if both.any() and (agreement := (majority == labels)[both].mean()) < MIN_AGREEMENT:
        raise DatasetError(
            f"{path.name} is not row-aligned with the images: votes and labels agree on {agreement:.0%}"
        )
    return answer
