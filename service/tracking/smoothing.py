"""Probabilities smoothed over time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

TIME_CONSTANT_S = 0.5
"""Unless a caller chooses another one."""


class Smoother:
    """Exponential smoothing by real time: after `time_constant_s`, a change has arrived by 63 %.

    smoothed += (1 - exp(-elapsed / time_constant)) * (new - smoothed); the first value is taken as it is, and
    with a time constant of 0 each is. Nothing else weighs, neither confidence nor quality.
    """

    def __init__(self, time_constant_s: float) -> None:
        self._time_constant_s = time_constant_s
        self._time_s = 0.0
        self._smoothed: NDArray[np.float64] | None = None

    def update(self, values: NDArray[np.float64], time_s: float) -> NDArray[np.float64]:
        """The smoothed values at `time_s`, which never falls."""
        if self._smoothed is None or not self._time_constant_s:
            self._smoothed = values
        else:
            share = -math.expm1((self._time_s - time_s) / self._time_constant_s)
            self._smoothed = self._smoothed + share * (values - self._smoothed)
        self._time_s = time_s
        return self._smoothed
