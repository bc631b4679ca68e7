"""How well votes tell labels, where they tell all, half and nothing of them."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from training.datasets.faces import LabelledFaces, Pictures
from training.evaluation.votes import labels_from_votes

LABELS, COUNT = 4, 2000
# Ten of each image, and what most of them say.
VOTES = (np.random.default_rng(0).multinomial(10, [0.4, 0.3, 0.2, 0.1], COUNT) / 10).astype(np.float32)
MOST = VOTES.argmax(axis=1)


def told(labels: NDArray[np.int64]) -> float:
    """Learned from the first half, told of the second."""
    half = COUNT // 2
    return labels_from_votes(_rows(slice(half), labels), _rows(slice(half, COUNT), labels), LABELS).value


def _rows(part: slice, labels: NDArray[np.int64]) -> LabelledFaces:
    names = np.arange(COUNT).astype(str)[part]
    no_pictures = cast(Pictures, None)
    return LabelledFaces(no_pictures, names, labels[part], VOTES[part], MOST[part], np.arange(len(names)))


def test_labels_that_follow_the_votes_are_told() -> None:
    assert told(MOST) > 0.95


def test_labels_that_have_nothing_to_do_with_the_votes_are_not() -> None:
    assert told(np.random.default_rng(1).integers(0, LABELS, COUNT)) < 0.35


def test_half_of_the_labels_is_half_of_the_truth() -> None:
    other = np.random.default_rng(1).random(COUNT) < 0.5
    assert 0.4 < told(np.where(other, (MOST + 1) % LABELS, MOST)) < 0.6
