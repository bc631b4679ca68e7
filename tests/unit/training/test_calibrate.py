"""Calibration recovers a known temperature, and chooses a prior and a threshold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import beta

from service.core.manifest import EMOTIONS, Prior
from service.core.priors import BALANCED
from training.calibrate import (
    SELECTIVE_ACCURACY,
    calibrate,
    choose_balanced,
    choose_threshold,
    fit_temperature,
    lower_limit,
    with_prior,
)
from training.datasets.faces import Ints, LabelledFaces, PixelPictures, one_hot
from training.evaluation.metrics import mean_recall, plurality, share_right
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
    logits, labels = logits_and_labels(temperature)
    assert fit_temperature(logits, one_hot(labels, 5)) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_the_temperature_is_that_of_the_shares_of_votes(temperature: float) -> None:
    logits, _ = logits_and_labels(temperature)
    shares = softmax(logits / temperature, axis=1)
    assert fit_temperature(logits, shares) == pytest.approx(temperature, rel=0.01)


def test_rows_without_votes_do_not_matter() -> None:
    logits, labels = logits_and_labels(1.7)
    noise = np.random.default_rng(1).normal(0, 50, logits.shape).astype(np.float32)
    shares = one_hot(labels, 5)
    with_noise = np.concatenate([logits, noise]), np.concatenate([shares, np.zeros_like(shares)])
    assert fit_temperature(*with_noise) == fit_temperature(logits, shares)


def test_the_threshold_is_the_lowest_with_a_lower_limit_that_is_accurate_enough() -> None:
    confidence = np.repeat(np.array([0.905, 0.705, 0.605], np.float32), 100)
    right = np.arange(300) % 100 < np.repeat([98, 93, 60], 100)
    # 98 + 93 of 200 are right. Their lower limit is 0.92, and that of 251 of 300 is 0.80.
    assert choose_threshold(right, confidence, 0.9) == pytest.approx(0.61)
    assert choose_threshold(right, confidence, 0.93) == pytest.approx(0.71)
    assert choose_threshold(right, confidence, 0.5) == 0


@pytest.mark.parametrize(("right", "samples"), [(93, 100), (100, 100), (0, 5), (2050, 2241)])
def test_the_lower_limit_is_that_of_clopper_and_pearson(right: int, samples: int) -> None:
    expected = beta.ppf(0.05, right, samples - right + 1) if right else 0.0
    assert lower_limit(right, samples) == pytest.approx(expected, abs=1e-6)


def test_an_accuracy_out_of_reach_is_an_error() -> None:
    with pytest.raises(ValueError, match="90%"):
        choose_threshold(np.array([True] * 20), np.full(20, 0.9, np.float32), 0.9)


def labelled(labels: Ints) -> LabelledFaces:
    pictures = PixelPictures(np.zeros((len(labels), 2, 2), np.uint8))
    names = np.arange(len(labels)).astype(str)
    return LabelledFaces.singly_labelled(pictures, names=names, labels=labels, group=np.arange(len(labels)))


def test_all_is_chosen_on_the_same_answers() -> None:
    logits, labels = logits_and_labels(2.0, 4000)
    rows = labelled(labels)
    nothing = np.zeros((len(logits), 0), np.float32)
    predicted = Predictions(nothing, nothing, logits, nothing, nothing, nothing).at(1.0)
    temperature, prior, threshold, calibrated = calibrate(predicted, rows, rows)
    assert temperature == fit_temperature(logits, one_hot(labels, 5))
    assert calibrated.probabilities == pytest.approx(softmax(logits / temperature, axis=1), abs=1e-6)
    # One vote per label: single votes vary no more than labels.
    assert prior.strength == 1
    assert prior.shares == {
        emotion: pytest.approx((labels == index).mean(), abs=1e-4)
        for index, emotion in enumerate(EMOTIONS[:5])
    }
    balanced = with_prior(calibrated.probabilities, prior, BALANCED)
    thresholds = [
        choose_threshold(*plurality(answers, rows), SELECTIVE_ACCURACY)
        for answers in (calibrated.probabilities, balanced)
    ]
    assert threshold == max(thresholds)


def test_balanced_finds_rare_emotions_at_half_a_point_of_accuracy() -> None:
    generator = np.random.default_rng(0)
    shares = np.array([0.9, 0.06, 0.04])
    labels = generator.choice(3, 5000, p=shares)
    evidence = generator.normal(0, 1, (5000, 3)) + 1.5 * one_hot(labels, 3)
    probabilities = softmax(1.5 * evidence + np.log(shares), axis=1).astype(np.float32)
    prior = choose_balanced(probabilities, labels, dict(zip(EMOTIONS, shares.tolist(), strict=False)), 1.0)
    assert 0 < prior.balanced_strength < 1
    answers = with_prior(probabilities, prior, BALANCED)
    assert mean_recall(answers, labels) > mean_recall(probabilities, labels) + 0.02
    assert share_right(answers, labels) >= share_right(probabilities, labels) - 0.005
    stronger = Prior(shares=prior.shares, strength=1, balanced_strength=prior.balanced_strength + 0.05)
    beyond = with_prior(probabilities, stronger, BALANCED)
    assert share_right(beyond, labels) < share_right(probabilities, labels) - 0.005


@pytest.mark.parametrize(("shift", "expected"), [(0, 0.05), (1, 20.0)])
def test_answers_that_are_all_right_or_all_wrong_have_a_temperature(shift: int, expected: float) -> None:
    labels = np.arange(80) % 8
    logits = np.eye(8, dtype=np.float32)[labels]
    assert fit_temperature(logits, one_hot((labels + shift) % 8)) == expected


def test_rows_without_any_vote_are_an_error() -> None:
    with pytest.raises(ValueError, match="needs rows with labels"):
        fit_temperature(np.zeros((2, 8), np.float32), np.zeros((2, 8), np.float32))
