"""Probabilities smoothed over time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

TIME_CONSTANT_S = 0.5
"""The default."""


class Smoother:
    """Exponential smoothing by real time: after `time_constant_s`, a change has arrived by 63 %.

    smoothed += (1 - exp(-elapsed / time_constant)) * (new - smoothed). The first value is not smoothed. With
    a time constant of 0, no value is smoothed. Confidence and quality do not change the weights.
    """

    def __init__(self, time_constant_s: float) -> None:
        self._time_constant_s = time_constant_s
        self._time_s = 0.0
        self._smoothed: NDArray[np.float64] | None = None

    def update(self, values: NDArray[np.float64], time_s: float) -> NDArray[np.float64]:
        """The smoothed values at `time_s`, which must never decrease."""
        if self._smoothed is None or not self._time_constant_s:
            self._smoothed = values
        else:
            share = -math.expm1((self._time_s - time_s) / self._time_constant_s)
            self._smoothed = self._smoothed + share * (values - self._smoothed)
        self._time_s = time_s
        return self._smoothed
