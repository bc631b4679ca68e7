"""Smoothing by the time between frames."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.tracking.smoothing import Smoother


def probabilities(value: float) -> np.ndarray:
    return np.array([value, 1 - value])


def test_the_first_value_is_not_smoothed() -> None:
    assert Smoother(5).update(probabilities(0.3), 100).tolist() == [0.3, 0.7]


def test_after_the_time_constant_a_change_is_complete_by_63_percent() -> None:
    smoother = Smoother(0.5)
    smoother.update(probabilities(0), 0)
    assert smoother.update(probabilities(1), 0.5)[0] == pytest.approx(1 - math.exp(-1))


def test_the_frame_rate_does_not_matter() -> None:
    often, seldom = Smoother(0.5), Smoother(0.5)
    often.update(probabilities(0), 0)
    seldom.update(probabilities(0), 0)
    for number in range(1, 31):
        smoothed = often.update(probabilities(1), number / 30)
    assert smoothed == pytest.approx(seldom.update(probabilities(1), 1))
    assert smoothed.sum() == pytest.approx(1)


def test_without_time_nothing_changes_and_without_a_constant_nothing_is_smoothed() -> None:
    smoother, plain = Smoother(0.5), Smoother(0)
    smoother.update(probabilities(0), 1)
    plain.update(probabilities(0), 1)
    assert smoother.update(probabilities(1), 1)[0] == 0
    assert plain.update(probabilities(1), 1)[0] == 1
