"""Calibration on validation rows: temperature, prior, and the confidence below which an answer is uncertain.

A probability is the share of the annotators who would name the emotion, so the temperature is fitted on
their votes. What most annotators say is surer than one vote, so the temperature of that label is lower.
Bayes' rule for other shares of the emotions applies to the label, and its factors are weaker for the votes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from torch.nn import functional

from service.core.manifest import EMOTIONS, Prior
from service.core.priors import BALANCED, prior_factors, with_factors
from training.datasets.faces import Bools, Ints, LabelledFaces, one_hot
from training.evaluation.metrics import mean_recall, plurality, share_right
from training.evaluation.predict import Floats, Predictions

SELECTIVE_ACCURACY = 0.9
# Probability that the accuracy of certain answers is not lower, if faces are drawn like the validation rows.
SELECTIVE_CONFIDENCE = 0.95
# The prior `balanced` may cost this much accuracy on validation rows.
BALANCED_COST = 0.005
# If all answers are right or all are wrong, the likelihood has no optimum inside these bounds.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


class Calibrated(NamedTuple):
    """What was chosen, and the calibrated answers that it was chosen on, with the prior of the training."""

    temperature: float
    prior: Prior
    threshold: float
    predicted: Predictions


def calibrate(predicted: Predictions, held_out: LabelledFaces, rows: LabelledFaces) -> Calibrated:
    """Choose temperature, prior and threshold on a network's answers for validation rows.

    rows: the training rows, for the shares of the emotions. The threshold holds for the training's shares
    and for the prior `balanced`.
    Raises `ValueError` as `choose_threshold` does.
    """
    emotions = EMOTIONS[: predicted.logits.shape[1]]
    temperature = fit_temperature(predicted.logits, held_out.distributions[:, : len(emotions)])
    calibrated = predicted.at(temperature)
    answers = calibrated.probabilities
    labels = one_hot(held_out.majority, len(emotions))
    sharpness = fit_temperature(predicted.logits, labels) / temperature
    shares = label_shares(rows, emotions)
    prior = choose_balanced(answers, held_out.majority, shares, round(min(1.0, sharpness), 2))
    threshold = max(
        choose_threshold(*plurality(each, held_out), SELECTIVE_ACCURACY)
        for each in (answers, with_prior(answers, prior, BALANCED))
    )
    return Calibrated(temperature, prior, threshold, calibrated)


def fit_temperature(logits: Floats, shares: Floats) -> float:
    """The temperature with the lowest cross-entropy to the shares of votes (Guo et al., 2017).

    logits: [N,C]; shares: [N,C], rows of zeros are not counted. Raises `ValueError` when all rows are zero.
    """
    voted = shares.sum(axis=1) > 0
    if not voted.any():
        raise ValueError("a temperature needs rows with labels")
    scores, truth = torch.from_numpy(logits[voted]).double(), torch.from_numpy(shares[voted]).double()
    found = minimize_scalar(
        lambda log_temperature: functional.cross_entropy(scores / math.exp(log_temperature), truth).item(),
        bounds=(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)),
        options={"xatol": 1e-7},
    )
    return round(math.exp(found.x), 4)


def label_shares(rows: LabelledFaces, emotions: tuple[str, ...]) -> dict[str, float]:
    """The share of each emotion among the faces with a majority."""
    counts = np.bincount(rows.majority[rows.majority >= 0], minlength=len(emotions))
    return {emotion: round(float(n / counts.sum()), 4) for emotion, n in zip(emotions, counts, strict=True)}


def with_prior(probabilities: Floats, prior: Prior, name: str) -> Floats:
    """Probabilities with another prior, as the service answers them."""
    return with_factors(probabilities, prior_factors(name, prior, EMOTIONS[: probabilities.shape[1]]))


def choose_balanced(probabilities: Floats, labels: Ints, shares: dict[str, float], strength: float) -> Prior:
    """The strength of `balanced` with the best mean recall whose accuracy falls by at most `BALANCED_COST`.

    Strengths are tried in steps of 0.05.
    """
    labelled = labels >= 0
    probabilities, labels = probabilities[labelled], labels[labelled]

    def at(balanced: float) -> tuple[Prior, Floats]:
        prior = Prior(shares=shares, strength=strength, balanced_strength=balanced)
        return prior, with_prior(probabilities, prior, BALANCED)

    tried = [at(round(step / 20, 2)) for step in range(21)]
    needed = share_right(probabilities, labels) - BALANCED_COST
    allowed = [each for each in tried if share_right(each[1], labels) >= needed]
    return max(allowed, key=lambda each: mean_recall(each[1], labels))[0]


def choose_threshold(right: Bools, confidence: Floats, selective_accuracy: float) -> float:
    """The lowest confidence, in steps of 0.01, from which answers are surely right often enough.

    The lower limit of their accuracy (Clopper and Pearson, 1934) must reach `selective_accuracy`.
    Raises `ValueError` when no confidence does.
    """
    for threshold in np.round(np.arange(0.0, 1.0, 0.01), 2):
        certain = right[confidence >= threshold]
        if len(certain) and lower_limit(int(certain.sum()), len(certain)) >= selective_accuracy:
            return float(threshold)
    raise ValueError(f"no confidence reaches a selective accuracy of {selective_accuracy:.0%}")


def lower_limit(right: int, samples: int) -> float:
    """One-sided lower confidence limit of a share."""
    test = binomtest(right, samples, alternative="greater")
    return float(test.proportion_ci(SELECTIVE_CONFIDENCE, method="exact").low)
