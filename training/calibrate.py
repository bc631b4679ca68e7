"""Calibration on validation rows: one temperature, and the confidence below which an answer is uncertain."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional

from training.datasets.faces import Ints
from training.evaluation.metrics import selective
from training.evaluation.predict import Floats, Predictions

SELECTIVE_ACCURACY = 0.9
# If all answers are right or all are wrong, the likelihood has no optimum inside these bounds.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


class Calibrated(NamedTuple):
    """A temperature and a threshold, and the calibrated answers that the threshold was chosen on."""

    temperature: float
    threshold: float
    predicted: Predictions


def calibrate(predicted: Predictions, labels: Ints) -> Calibrated:
    """Choose temperature and threshold on a network's answers for validation rows.

    labels: [N], negative if missing. Raises `ValueError` as `choose_threshold` does.
    """
    temperature = fit_temperature(predicted.logits, labels)
    calibrated = predicted.at(temperature)
    threshold = choose_threshold(calibrated.probabilities, labels, SELECTIVE_ACCURACY)
    return Calibrated(temperature, threshold, calibrated)


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature with the lowest negative log-likelihood over labelled rows (Guo et al., 2017).

    logits: [N,C]; labels: [N], negative if missing. Raises `ValueError` when all labels are missing.
    """
    labelled = labels >= 0
    if not labelled.any():
        raise ValueError("a temperature needs rows with labels")
    scores, truth = torch.from_numpy(logits[labelled]).double(), torch.from_numpy(labels[labelled])
    found = minimize_scalar(
        lambda log_temperature: functional.cross_entropy(scores / math.exp(log_temperature), truth).item(),
        bounds=(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)),
        options={"xatol": 1e-7},
    )
    return round(math.exp(found.x), 4)


def choose_threshold(probabilities: Floats, labels: Ints, selective_accuracy: float) -> float:
    """The lowest confidence, in steps of 0.01, from which answers reach `selective_accuracy`.

    Raises `ValueError` when no confidence does.
    """
    for threshold in np.round(np.arange(0.0, 1.0, 0.01), 2):
        covered, reached = selective(probabilities, labels, threshold)
        if covered and reached >= selective_accuracy:
            return float(threshold)
    raise ValueError(f"no confidence reaches a selective accuracy of {selective_accuracy:.0%}")
