"""Calibration recovers a known temperature, and chooses a threshold."""

from __future__ import annotations

import numpy as np
import pytest

from training.calibrate import SELECTIVE_ACCURACY, calibrate, choose_threshold, fit_temperature
from training.datasets.faces import Ints
from training.evaluation.predict import Floats, Predictions


def logits_and_labels(temperature: float, count: int = 20_000) -> tuple[Floats, Ints]:
    """Logits and labels. The labels are drawn from logits, which are then multiplied by `temperature`."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (count, 5))
    # The Gumbel maximum is a draw from the softmax.
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    return (logits * temperature).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    assert fit_temperature(*logits_and_labels(temperature)) == pytest.approx(temperature, rel=0.05)


def test_rows_without_a_label_do_not_matter() -> None:
    logits, labels = logits_and_labels(1.7)
    noise = np.random.default_rng(1).normal(0, 50, logits.shape).astype(np.float32)
    with_noise = np.concatenate([logits, noise]), np.concatenate([labels, np.full(len(noise), -1)])
    assert fit_temperature(*with_noise) == fit_temperature(logits, labels)


def test_the_threshold_is_the_lowest_that_is_accurate_enough() -> None:
    probabilities = np.array([[0.905, 0.095], [0.805, 0.195], [0.705, 0.295], [0.605, 0.395]], np.float32)
    labels = np.array([0, 0, 1, 0])
    assert choose_threshold(probabilities, labels, 0.75) == 0
    assert choose_threshold(probabilities, labels, 0.9) == pytest.approx(0.71)
    assert choose_threshold(probabilities, np.array([0, 1, 1, 1]), 1.0) == pytest.approx(0.81)


def test_an_accuracy_out_of_reach_is_an_error() -> None:
    with pytest.raises(ValueError, match="90%"):
        choose_threshold(np.array([[0.9, 0.1]], np.float32), np.array([1]), 0.9)


def test_both_are_chosen_on_the_same_answers() -> None:
    logits, labels = logits_and_labels(2.0, 2000)
    nothing = np.zeros((len(logits), 0), np.float32)
    predicted = Predictions(nothing, nothing, logits, nothing, nothing, nothing).at(1.0)
    assert predicted.probabilities.sum(axis=1) == pytest.approx(1)
    temperature, threshold, calibrated = calibrate(predicted, labels)
    assert temperature == fit_temperature(logits, labels)
    assert threshold == choose_threshold(calibrated.probabilities, labels, SELECTIVE_ACCURACY)
    exponentials = np.exp(logits.astype(np.float64) / temperature)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert calibrated.probabilities == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("shift", "expected"), [(0, 0.05), (1, 20.0)])
def test_answers_that_are_all_right_or_all_wrong_have_a_temperature(shift: int, expected: float) -> None:
    labels = np.arange(80) % 8
    assert fit_temperature(np.eye(8, dtype=np.float32)[labels], (labels + shift) % 8) == expected


def test_rows_without_any_label_are_an_error() -> None:
    with pytest.raises(ValueError, match="needs rows with labels"):
        fit_temperature(np.zeros((2, 8), np.float32), np.array([-1, -1]))
