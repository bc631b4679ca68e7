"""The cheapest pairs, compared with those of SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from service.tracking.assignment import FORBIDDEN, assign


@pytest.mark.parametrize("forbidden", [0.0, 0.4, 0.9])
def test_pairs_cost_no_more_than_those_of_scipy(forbidden: float) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        costs = random.random(random.integers(0, 9, 2))
        costs[random.random(costs.shape) < forbidden] = FORBIDDEN
        pairs = assign(costs)
        rows, columns = linear_sum_assignment(costs)
        best = [cost for cost in costs[rows, columns] if cost < FORBIDDEN]
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert len(pairs) == len(best)
        assert sum(costs[pair] for pair in pairs) == pytest.approx(sum(best))


def test_forbidden_pairs_are_not_assigned() -> None:
    assert assign(np.full((3, 2), FORBIDDEN)) == []
