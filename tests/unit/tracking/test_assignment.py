"""The cheapest pairs, against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from service.tracking.assignment import FORBIDDEN, assign


@pytest.mark.parametrize("forbidden", [0.0, 0.4, 0.9])
def test_costs_no_more_than_scipys(forbidden: float) -> None:
    chosen = np.random.default_rng(0)
    for _ in range(200):
        costs = chosen.random(chosen.integers(0, 9, 2))
        costs[chosen.random(costs.shape) < forbidden] = FORBIDDEN
        pairs = assign(costs)
        rows, columns = linear_sum_assignment(costs)
        best = [cost for cost in costs[rows, columns] if cost < FORBIDDEN]
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert len(pairs) == len(best)
        assert sum(costs[pair] for pair in pairs) == pytest.approx(sum(best))


def test_forbidden_pairs_stay_alone() -> None:
    assert assign(np.full((3, 2), FORBIDDEN)) == []
