"""Labels are predicted from votes that determine all labels, half of them, or none."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from training.datasets.faces import LabelledFaces, Pictures
from training.evaluation.votes import labels_from_votes

LABELS, COUNT = 4, 2000
# The shares of ten votes per image, and the answer with the most votes.
VOTES = (np.random.default_rng(0).multinomial(10, [0.4, 0.3, 0.2, 0.1], COUNT) / 10).astype(np.float32)
MAJORITY = VOTES.argmax(axis=1)


def accuracy_of(labels: NDArray[np.int64]) -> float:
    """Fit on the first half of the images. Returns the accuracy on the second half."""
    half = COUNT // 2
    return labels_from_votes(rows_of(slice(half), labels), rows_of(slice(half, COUNT), labels), LABELS).value


def rows_of(part: slice, labels: NDArray[np.int64]) -> LabelledFaces:
    names = np.arange(COUNT).astype(str)[part]
    no_pictures = cast(Pictures, None)
    return LabelledFaces(no_pictures, names, labels[part], VOTES[part], MAJORITY[part], np.arange(len(names)))


def test_labels_that_follow_the_votes_are_predicted() -> None:
    assert accuracy_of(MAJORITY) > 0.95


def test_labels_that_are_independent_of_the_votes_are_not_predicted() -> None:
    assert accuracy_of(np.random.default_rng(1).integers(0, LABELS, COUNT)) < 0.35


def test_half_of_the_labels_are_predicted_if_the_votes_fit_half() -> None:
    changed = np.random.default_rng(1).random(COUNT) < 0.5
    assert 0.4 < accuracy_of(np.where(changed, (MAJORITY + 1) % LABELS, MAJORITY)) < 0.6
