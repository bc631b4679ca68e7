"""FER+ votes become label distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.ferplus import vote_labels


@pytest.mark.parametrize(
    ("votes", "distribution", "majority"),
    [
        pytest.param((10, 0, 0, 0, 0, 0, 0, 0, 0, 0), {0: 1.0}, 0, id="all agree"),
        pytest.param((0, 6, 4, 0, 0, 0, 0, 0, 0, 0), {1: 0.6, 2: 0.4}, 1, id="more than half"),
        pytest.param((5, 5, 0, 0, 0, 0, 0, 0, 0, 0), {0: 0.5, 1: 0.5}, -1, id="exactly half"),
        pytest.param((0, 8, 0, 1, 0, 0, 1, 0, 0, 0), {1: 1.0}, 1, id="single votes are outliers"),
        pytest.param((1, 1, 1, 1, 5, 1, 0, 0, 0, 0), {4: 1.0}, 4, id="majority of what remains"),
        pytest.param((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), {}, -1, id="only outliers"),
        pytest.param((4, 0, 0, 0, 0, 0, 0, 0, 6, 0), {}, -1, id="mostly unknown"),
        pytest.param((5, 0, 0, 0, 0, 0, 0, 0, 5, 0), {}, -1, id="half unknown"),
        pytest.param((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), {}, -1, id="not a face"),
        pytest.param((4, 3, 0, 0, 0, 0, 0, 0, 3, 0), {0: 4 / 7, 1: 3 / 7}, -1, id="unknown counts"),
        pytest.param((6, 0, 0, 0, 0, 0, 0, 0, 0, 4), {0: 1.0}, 0, id="a face for most annotators"),
        pytest.param((0, 0, 0, 0, 0, 0, 0, 7, 3, 0), {7: 1.0}, 7, id="contempt"),
    ],
)
def test_votes_become_a_distribution_and_a_majority(
    votes: tuple[int, ...], distribution: dict[int, float], majority: int
) -> None:
    distributions, majorities = vote_labels(np.array([votes]))
    np.testing.assert_allclose(distributions, [[distribution.get(index, 0) for index in range(8)]], rtol=1e-6)
    assert majorities.tolist() == [majority]
    assert distributions.dtype == np.float32
    assert majorities.dtype == np.int64


@pytest.mark.parametrize(
    ("votes", "distribution"),
    [
        pytest.param((10, 0, 0, 0, 0, 0, 0, 0, 0, 0), {0: 1.0}, id="all agree"),
        pytest.param((5, 3, 2, 0, 0, 0, 0, 0, 0, 0), {0: 5 / 8, 1: 3 / 8}, id="three quarters are enough"),
        pytest.param((7, 3, 0, 0, 0, 0, 0, 0, 0, 0), {0: 0.7, 1: 0.3}, id="seven tenths are not enough"),
        pytest.param((8, 2, 0, 0, 0, 0, 0, 0, 0, 0), {0: 1.0}, id="a clear majority stands alone"),
        pytest.param((4, 2, 2, 2, 0, 0, 0, 0, 0, 0), {}, id="more than three emotions"),
        pytest.param((4, 3, 0, 0, 0, 0, 0, 0, 3, 0), {0: 4 / 7, 1: 3 / 7}, id="unknown is as frequent"),
        pytest.param((3, 0, 0, 0, 0, 0, 0, 0, 3, 0), {}, id="half unknown"),
        pytest.param((3, 2, 2, 0, 0, 0, 0, 0, 3, 0), {}, id="unknown comes before the others"),
        pytest.param((4, 2, 0, 0, 0, 0, 0, 0, 4, 0), {}, id="unknown ties with the first"),
        pytest.param((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), {}, id="only outliers"),
    ],
)
def test_the_published_rule_takes_the_leading_emotions(
    votes: tuple[int, ...], distribution: dict[int, float]
) -> None:
    distributions, _ = vote_labels(np.array([votes]), published=True)
    np.testing.assert_allclose(distributions, [[distribution.get(index, 0) for index in range(8)]], rtol=1e-6)


def by_formula(votes: list[int]) -> list[float]:
    """One row by the authors' steps: take the answers with the most votes until one of four conditions."""
    left = [vote if vote > 1 else 0 for vote in votes]
    total, taken, part, count, going = sum(left), [0] * 10, 0, 0, True
    while part < 0.75 * total and count < 3 and going:
        most = max(left)
        for answer in range(10):
            if left[answer] == most:
                taken[answer], left[answer] = most, 0
                part, count = part + most, count + 1
                if answer >= 8:
                    going = False
                    if sum(taken) > most:
                        taken[answer], count = 0, count - 1
                    break
    if sum(taken) <= 0.5 * total or count > 3 or taken.index(max(taken)) >= 8:
        return [0.0] * 8
    return [vote / sum(taken[:8]) for vote in taken[:8]]


@given(st.lists(st.integers(0, 10), min_size=10, max_size=10))
def test_the_published_rule_is_the_authors_formula(votes: list[int]) -> None:
    distributions, majority = vote_labels(np.array([votes]), published=True)
    np.testing.assert_allclose(distributions[0], by_formula(votes), rtol=1e-6)
    assert majority.tolist() == vote_labels(np.array([votes]))[1].tolist()


@given(st.lists(st.integers(0, 10), min_size=10, max_size=10))
def test_a_distribution_sums_to_one_or_zero_and_a_majority_is_its_maximum(votes: list[int]) -> None:
    distributions, majority = vote_labels(np.array([votes]))
    assert distributions.sum() == pytest.approx(1) or not distributions.any()
    if majority[0] >= 0:
        assert distributions[0].argmax() == majority[0]
        assert distributions[0].max() > 0.5
