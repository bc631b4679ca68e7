"""Priors: the shares of the emotions that the probabilities assume, and other shares by Bayes' rule.

A prior is a text: `training`, `balanced`, or shares by name like `neutral=0.6,happiness=0.4`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.core.manifest import EMOTIONS, Prior

TRAINING, BALANCED = "training", "balanced"
# A share that is estimated as 0 must not exclude an emotion.
MIN_SHARE = 0.001

Floats = NDArray[np.float32]


def parse_prior(text: str) -> str:
    """The prior in its standard form, with shares whose sum is 1. Raises `ValueError` with what is wrong."""
    name = text.strip()
    return name if name in (TRAINING, BALANCED) else format_shares(_shares(name))


def format_shares(shares: dict[str, float]) -> str:
    """Shares by emotion as a prior, scaled to the sum 1."""
    total = sum(shares.values())
    return ",".join(f"{emotion}={share / total:.3g}" for emotion, share in shares.items())


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in text.split(","):
        emotion, sign, number = (piece.strip() for piece in part.partition("="))
        if not sign:
            raise ValueError(f"{text!r} is not training, balanced, or shares like neutral=0.6,happiness=0.4")
        if emotion not in EMOTIONS or emotion in shares:
            fault = "is named twice" if emotion in shares else f"is none of {', '.join(EMOTIONS)}"
            raise ValueError(f"{emotion!r} {fault}")
        try:
            shares[emotion] = float(number)
        except ValueError:
            raise ValueError(f"the share of {emotion} is not a number") from None
        if not 0 <= shares[emotion] < math.inf:
            raise ValueError(f"the share of {emotion} is not a number from 0")
    if not 0 < sum(shares.values()) < math.inf:
        raise ValueError("the sum of the shares must be greater than 0")
    return shares


def prior_factors(prior: str, assumed: Prior, labels: Sequence[str]) -> Floats:
    """float32 [C]: new over assumed share of each emotion, to the power of the strength.

    prior: in its standard form. Emotions that it does not name have the share 0, which counts as `MIN_SHARE`.
    """
    if prior == TRAINING:
        return np.ones(len(labels), np.float32)
    old = np.array([assumed.shares.get(label, 0.0) for label in labels])
    if prior == BALANCED:
        new, strength = np.full(len(labels), 1 / len(labels)), assumed.balanced_strength
    else:
        shares = _shares(prior)
        new, strength = np.array([shares.get(label, 0.0) for label in labels]), assumed.strength
    factors: Floats = ((new.clip(MIN_SHARE) / old.clip(MIN_SHARE)) ** strength).astype(np.float32)
    return factors


def with_factors(probabilities: Floats, factors: Floats) -> Floats:
    """float32 [N,C], rows sum to 1 again."""
    changed = probabilities * factors
    answers: Floats = changed / changed.sum(axis=1, keepdims=True)
    return answers
