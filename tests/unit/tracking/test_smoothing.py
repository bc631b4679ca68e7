"""Smoothing by real time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.tracking.smoothing import Smoother


def at(value: float) -> np.ndarray:
    return np.array([value, 1 - value])


def test_the_first_is_taken_as_it_is() -> None:
    assert Smoother(5).update(at(0.3), 100).tolist() == [0.3, 0.7]


def test_after_the_time_constant_a_change_has_arrived_by_63_percent() -> None:
    smoother = Smoother(0.5)
    smoother.update(at(0), 0)
    assert smoother.update(at(1), 0.5)[0] == pytest.approx(1 - math.exp(-1))


def test_how_often_frames_come_does_not_matter() -> None:
    often, seldom = Smoother(0.5), Smoother(0.5)
    often.update(at(0), 0)
    seldom.update(at(0), 0)
    for number in range(1, 31):
        smoothed = often.update(at(1), number / 30)
    assert smoothed == pytest.approx(seldom.update(at(1), 1))
    assert smoothed.sum() == pytest.approx(1)


def test_without_time_nothing_changes_and_without_a_constant_all_does() -> None:
    smoother, plain = Smoother(0.5), Smoother(0)
    smoother.update(at(0), 1)
    plain.update(at(0), 1)
    assert smoother.update(at(1), 1)[0] == 0
    assert plain.update(at(1), 1)[0] == 1
