"""Honest figures, each with its sample count and a 95 % bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from service.manifest import EMOTIONS, Metric
from training.datasets.fer2013 import FER2013_LABELS, FaceImages

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BOOTSTRAP_DRAWS = 1000
ECE_BINS = 15


class Predictions(NamedTuple):
    """probabilities: [N,C] of the served head; auxiliary: [N,A] of the training-only head; logits: [N,C]."""

    probabilities: Floats
    auxiliary: Floats
    logits: Floats


@torch.no_grad()
def predict(
    network: nn.Module,
    images: NDArray[np.uint8],
    *,
    temperature: float = 1.0,
    batch: int = 256,
    device: torch.device | None = None,
) -> Predictions:
    """images: uint8 [N,48,48] grey."""
    network.eval()
    logits, auxiliary = [], []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch]).to(device).unsqueeze(1).float() / 255
        outputs = network(pixels)
        logits.append(outputs.logits.float().cpu())
        auxiliary.append(outputs.auxiliary.float().cpu())
    scores = torch.cat(logits)
    return Predictions(
        torch.softmax(scores / temperature, dim=1).numpy(),
        torch.softmax(torch.cat(auxiliary), dim=1).numpy(),
        scores.numpy(),
    )


def accuracy(probabilities: Floats, labels: Ints) -> Metric:
    """Share of right answers over the rows that have a label (>= 0)."""
    return _bootstrapped(_accuracy, probabilities, labels)


def evaluate(predicted: Predictions, rows: FaceImages) -> dict[str, dict[str, Metric]]:
    """The manifest's figures for one split, by kind of label."""
    return {
        "ferplus": {
            "accuracy": accuracy(predicted.probabilities, rows.majority),
            "mean_class_accuracy": _bootstrapped(_mean_recall, predicted.probabilities, rows.majority),
            "macro_f1": _bootstrapped(_macro_f1, predicted.probabilities, rows.majority),
            "ece": _bootstrapped(expected_calibration_error, predicted.probabilities, rows.majority),
        },
        "fer2013": {
            "accuracy": accuracy(_as_fer2013(predicted.probabilities), rows.labels),
            "accuracy_of_training_only_head": accuracy(predicted.auxiliary, rows.labels),
        },
    }


def expected_calibration_error(probabilities: Floats, labels: Ints) -> float:
    """Mean gap of confidence and accuracy over equal-width bins (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def selective(probabilities: Floats, labels: Ints, threshold: float) -> tuple[float, float]:
    """(coverage, accuracy) over labelled rows when only confidence of at least `threshold` counts."""
    labelled = labels >= 0
    probabilities, labels = probabilities[labelled], labels[labelled]
    certain = probabilities.max(axis=1) >= threshold
    if not certain.any():
        return 0.0, 0.0
    return float(certain.mean()), _accuracy(probabilities[certain], labels[certain])


def _as_fer2013(probabilities: Floats) -> Floats:
    """The eight served emotions as FER-2013's seven, which have no contempt."""
    return probabilities[:, [EMOTIONS.index(label) for label in FER2013_LABELS]]


def _bootstrapped(figure: Callable[[Floats, Ints], float], probabilities: Floats, labels: Ints) -> Metric:
    labelled = labels >= 0
    probabilities, labels = probabilities[labelled], labels[labelled]
    count = len(labels)
    generator = np.random.default_rng(0)
    draws = [
        figure(probabilities[chosen], labels[chosen])
        for chosen in (generator.integers(0, count, count) for _ in range(BOOTSTRAP_DRAWS))
    ]
    value = figure(probabilities, labels)
    # Resampling adds noise and a calibration error adds noise up, so its draws lie too high: take that off.
    low, high = (np.quantile(draws, [0.025, 0.975]) - (np.mean(draws) - value)).clip(0, 1)
    return Metric(
        value=round(value, 4), samples=count, interval=(round(float(low), 4), round(float(high), 4))
    )


def _accuracy(probabilities: Floats, labels: Ints) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def _mean_recall(probabilities: Floats, labels: Ints) -> float:
    right = probabilities.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _macro_f1(probabilities: Floats, labels: Ints) -> float:
    answered = probabilities.argmax(axis=1)
    scores = []
    for label in np.unique(labels):
        hits = np.sum((answered == label) & (labels == label))
        scores.append(2 * hits / (np.sum(answered == label) + np.sum(labels == label)))
    return float(np.mean(scores))
