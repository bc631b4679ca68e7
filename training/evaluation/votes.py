"""How well annotators' votes alone predict a data set's own labels, without the images.

When two sets of labels disagree, a network that learned one set cannot answer the other. The accuracy of a
prediction from ten annotators' votes is a reference for the network.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from service.core.manifest import Metric
from training.datasets.faces import LabelledFaces
from training.evaluation.metrics import accuracy

STEPS = 300
# Keeps the weights of very rare votes finite.
WEIGHT_DECAY = 1e-5


def labels_from_votes(known: LabelledFaces, rows: LabelledFaces, labels: int) -> Metric:
    """Fit a logistic regression from votes to labels on `known`, and return its accuracy on `rows`.

    Its inputs are the share of each answer and the products of all pairs of shares. labels: their number.
    """
    inputs = _features(known)
    answers = torch.from_numpy(known.labels)
    weights = torch.zeros(inputs.shape[1], labels, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        found = functional.cross_entropy(inputs @ weights, answers) + WEIGHT_DECAY * weights.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        predicted: NDArray[np.float32] = functional.softmax(_features(rows) @ weights, dim=1).float().numpy()
    return accuracy(predicted, rows.labels)


def _features(rows: LabelledFaces) -> torch.Tensor:
    """float64 [N, 1 + D + D * (D + 1) / 2] for D possible answers."""
    shares = torch.from_numpy(rows.distributions).double()
    first, second = torch.triu_indices(shares.shape[1], shares.shape[1])
    ones = torch.ones(len(shares), 1, dtype=torch.float64)
    return torch.cat([ones, shares, shares[:, first] * shares[:, second]], dim=1)
