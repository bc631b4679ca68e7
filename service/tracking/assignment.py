"""Pair rows with columns at the lowest total cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FORBIDDEN = 1e6
"""The cost of a forbidden pair; any real cost is far lower."""


def assign(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """costs: float64 [R,C] -> pairs (row, column) with the lowest total cost, without forbidden pairs.

    The Hungarian method by shortest augmenting paths (Jonker and Volgenant, 1987), in O(n^3).
    """
    if not costs.size:
        return []
    if costs.shape[0] > costs.shape[1]:
        return [(row, column) for column, row in assign(costs.T)]
    rows, columns = costs.shape
    cheapest = costs.argmin(axis=1).tolist()
    if len(set(cheapest)) == rows:  # the usual case: faces are apart
        return [(row, column) for row, column in enumerate(cheapest) if costs[row, column] < FORBIDDEN]
    row_prices, column_prices = np.zeros(rows), np.zeros(columns)
    row_of = np.full(columns, -1)
    for new in range(rows):
        distance, came_from = np.full(columns, np.inf), np.full(columns, -1)
        done = np.zeros(columns, bool)
        row, column, so_far = new, -1, 0.0
        while row >= 0:
            if column >= 0:
                done[column] = True
            reached = so_far + costs[row] - row_prices[row] - column_prices
            nearer = ~done & (reached < distance)
            distance[nearer], came_from[nearer] = reached[nearer], column
            column = int(np.argmin(np.where(done, np.inf, distance)))
            so_far = float(distance[column])
            row = int(row_of[column])
        row_prices[new] += so_far
        row_prices[row_of[done]] += so_far - distance[done]
        column_prices[done] -= so_far - distance[done]
        while column >= 0:
            before = int(came_from[column])
            row_of[column] = new if before < 0 else row_of[before]
            column = before
    return [
        (int(row), column) for column, row in enumerate(row_of) if row >= 0 and costs[row, column] < FORBIDDEN
    ]
