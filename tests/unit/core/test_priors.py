"""Priors are parsed once, and change probabilities by Bayes' rule."""

from __future__ import annotations

import numpy as np
import pytest

from service.core.manifest import Prior
from service.core.priors import format_shares, parse_prior, prior_factors, with_factors

LABELS = ("neutral", "happiness", "surprise")
ASSUMED = Prior(
    shares={"neutral": 0.5, "happiness": 0.25, "surprise": 0.25}, strength=1, balanced_strength=0.5
)
ROWS = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], np.float32)


@pytest.mark.parametrize(
    ("sent", "standard"),
    [
        ("training", "training"),
        (" balanced ", "balanced"),
        ("neutral=0.6,happiness=0.4", "neutral=0.6,happiness=0.4"),
        ("neutral = 60, happiness = 20", "neutral=0.75,happiness=0.25"),
        ("sadness=1,anger=0", "sadness=1,anger=0"),
    ],
)
def test_a_prior_has_a_standard_form(sent: str, standard: str) -> None:
    assert parse_prior(sent) == standard
    assert parse_prior(standard) == standard


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        ("uniform", "is not training, balanced, or shares like"),
        ("", "is not training, balanced, or shares like"),
        ("joy=1", "'joy' is none of neutral, happiness"),
        ("fear=0.5,fear=0.5", "'fear' is named twice"),
        ("fear=much", "the share of fear is not a number"),
        ("fear=-1", "the share of fear is not a number from 0"),
        ("fear=nan", "the share of fear is not a number from 0"),
        ("fear=inf", "the share of fear is not a number from 0"),
        ("fear=0,anger=0", "the sum of the shares must be greater than 0"),
    ],
)
def test_a_bad_prior_is_an_error_that_says_what_is_wrong(sent: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_prior(sent)


def test_the_prior_of_the_training_changes_nothing() -> None:
    np.testing.assert_allclose(
        with_factors(ROWS, prior_factors("training", ASSUMED, LABELS)), ROWS, rtol=1e-6
    )
    same = format_shares(ASSUMED.shares)
    np.testing.assert_allclose(with_factors(ROWS, prior_factors(same, ASSUMED, LABELS)), ROWS, rtol=1e-6)


def test_shares_change_probabilities_by_bayes_rule() -> None:
    factors = prior_factors("neutral=0.25,happiness=0.5,surprise=0.25", ASSUMED, LABELS)
    expected = np.array([0.6 * 0.5, 0.3 * 2, 0.1])
    np.testing.assert_allclose(with_factors(ROWS, factors)[0], expected / expected.sum(), rtol=1e-6)


def test_balanced_goes_a_part_of_the_way_to_equal_shares() -> None:
    factors = prior_factors("balanced", ASSUMED, LABELS)
    np.testing.assert_allclose(factors[0] / factors[1], 0.5**0.5, rtol=1e-6)
    np.testing.assert_allclose(with_factors(ROWS, factors).sum(axis=1), 1, rtol=1e-6)


def test_an_emotion_that_is_not_named_stays_possible() -> None:
    sure = np.array([[0.0, 0.0, 1.0]], np.float32)
    answers = with_factors(sure, prior_factors("neutral=0.5,happiness=0.5", ASSUMED, LABELS))
    np.testing.assert_allclose(answers, sure)


def test_emotions_that_the_training_never_saw_have_finite_factors() -> None:
    factors = prior_factors("neutral=0.5,fear=0.5", ASSUMED, ("neutral", "fear"))
    assert np.isfinite(factors).all()
