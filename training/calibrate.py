"""Calibration on validation rows: one temperature, and the confidence below which an answer is uncertain."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from training.evaluation.metrics import Ints, selective
from training.evaluation.predict import Floats


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature with the lowest negative log-likelihood over labelled rows (Guo et al., 2017).

    logits: [N,C]; labels: [N], negative if missing.
    """
    labelled = labels >= 0
    scores, truth = torch.from_numpy(logits[labelled]), torch.from_numpy(labels[labelled])
    log_temperature = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(scores / log_temperature.exp(), truth)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    # If all answers are right or all are wrong, the likelihood has no optimum inside these bounds.
    return round(float(log_temperature.detach().exp().clamp(0.05, 20.0)), 4)


def choose_threshold(probabilities: Floats, labels: Ints, selective_accuracy: float) -> float:
    """The lowest confidence, in steps of 0.01, from which answers reach `selective_accuracy`.

    Raises `ValueError` when no confidence does.
    """
    for threshold in np.round(np.arange(0.0, 1.0, 0.01), 2):
        covered, reached = selective(probabilities, labels, threshold)
        if covered and reached >= selective_accuracy:
            return float(threshold)
    raise ValueError(f"no confidence reaches a selective accuracy of {selective_accuracy:.0%}")
