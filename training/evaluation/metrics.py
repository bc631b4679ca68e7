"""Figures with sample counts. Single numbers also have a 95 % bootstrap interval.

probabilities: float32 [N,C]; labels: int64 [N], indices of columns. Rows with label -1 are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from service.core.manifest import EMOTIONS, Metric
from training.datasets.faces import Bools, Ints, LabelledFaces, one_hot
from training.evaluation.predict import Floats, Predictions

BOOTSTRAP_DRAWS = 1000
BINS = 15
# Keeps the weights of very rare votes finite: the factor of their squares beside the mean of the losses.
VOTES_WEIGHT_DECAY = 1e-5
COVERAGES = tuple(round(share / 20, 2) for share in range(1, 21))


def accuracy(probabilities: Floats, labels: Ints) -> Metric:
    """Share of right answers."""
    return bootstrapped(_accuracy, probabilities, labels)


def mean_class_accuracy(probabilities: Floats, labels: Ints) -> Metric:
    """Mean recall over the emotions (balanced accuracy)."""
    return bootstrapped(_mean_recall, probabilities, labels)


def calibration_error(probabilities: Floats, labels: Ints) -> Metric:
    """Expected calibration error: see `expected_calibration_error`."""
    return bootstrapped(expected_calibration_error, probabilities, labels)


def figures(
    predicted: Predictions, rows: LabelledFaces, label_emotions: int, threshold: float
) -> dict[str, Metric]:
    """The manifest's figures for one split.

    label_emotions: number of emotions of the data set's own labels, 0 without them.
    threshold: the verdict's, for `coverage` and `selective_accuracy`.
    """
    probabilities, majority = predicted.probabilities, rows.majority
    covered, reached = selective(probabilities, majority, threshold)
    labelled = int((majority >= 0).sum())
    measured = {
        "accuracy": accuracy(probabilities, majority),
        "mean_class_accuracy": mean_class_accuracy(probabilities, majority),
        "macro_f1": bootstrapped(_macro_f1, probabilities, majority),
        "ece": calibration_error(probabilities, majority),
        "coverage": Metric(value=round(covered, 4), samples=labelled),
        "selective_accuracy": Metric(value=round(reached, 4), samples=round(covered * labelled)),
        "selective_accuracy_at_80": Metric(
            value=round(accuracy_at(probabilities, majority, 0.8), 4), samples=round(0.8 * labelled)
        ),
    }
    if label_emotions:
        # The data set's own labels have fewer emotions than the main head.
        measured["original_labels_main_head"] = accuracy(probabilities[:, :label_emotions], rows.labels)
        if predicted.label_probabilities.shape[1]:
            measured["original_labels_label_head"] = accuracy(predicted.label_probabilities, rows.labels)
    return measured


def labels_from_votes(known: LabelledFaces, rows: LabelledFaces, labels: int) -> Metric:
    """How well the votes of annotators alone predict a data set's own labels, without the images.

    When two sets of labels disagree, a network that learned one set cannot answer the other. A logistic
    regression from votes to labels is fitted on `known` and measured on `rows`. Its inputs are the share of
    each answer and the products of all pairs of shares. labels: their number.
    """
    strength = 1 / (2 * VOTES_WEIGHT_DECAY * len(known.labels))
    # The features have a constant, so the intercept decays like the other weights.
    regression = LogisticRegression(C=strength, fit_intercept=False, tol=1e-6, max_iter=1000)
    model = make_pipeline(PolynomialFeatures(degree=2), regression)
    model.fit(known.distributions.astype(np.float64), known.labels)
    predicted = model.predict(rows.distributions.astype(np.float64))
    return accuracy(one_hot(predicted, labels), rows.labels)


@dataclass(frozen=True)
class ClassFigures:
    """One emotion. precision: share of right answers among its answers; recall: share of its faces found."""

    emotion: str
    precision: float
    recall: float
    f1: float
    samples: int


def by_class(probabilities: Floats, labels: Ints) -> list[ClassFigures]:
    """Figures of each emotion, in the order of columns; a figure without samples is 0."""
    probabilities, labels = _labelled(probabilities, labels)
    emotions = EMOTIONS[: probabilities.shape[1]]
    *shares, samples = metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(len(emotions)), zero_division=0
    )
    columns = (*(share.round(4).tolist() for share in shares), samples.astype(int).tolist())
    return [ClassFigures(*row) for row in zip(emotions, *columns, strict=True)]


def confusion_matrix(probabilities: Floats, labels: Ints) -> Ints:
    """Counts [C,C]: rows are labels, columns answers."""
    probabilities, labels = _labelled(probabilities, labels)
    counts: Ints = metrics.confusion_matrix(
        labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1])
    )
    return counts


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence."""

    confidence: float
    accuracy: float
    samples: int


def reliability(probabilities: Floats, labels: Ints) -> list[Bin]:
    """The non-empty bins of the expected calibration error, by rising confidence."""
    probabilities, labels = _labelled(probabilities, labels)
    confidence, right, bins = _binned(probabilities, labels)
    return [
        Bin(float(confidence[bins == b].mean()), float(right[bins == b].mean()), int((bins == b).sum()))
        for b in np.unique(bins)
    ]


def expected_calibration_error(probabilities: Floats, labels: Ints) -> float:
    """Mean gap of confidence and accuracy over equal-width bins (Guo et al., 2017); every row has a label."""
    confidence, right, bins = _binned(probabilities, labels)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def selective(probabilities: Floats, labels: Ints, threshold: float) -> tuple[float, float]:
    """(coverage, accuracy) of the answers with a confidence of at least `threshold`."""
    probabilities, labels = _labelled(probabilities, labels)
    certain = probabilities.max(axis=1) >= threshold
    if not certain.any():
        return 0.0, 0.0
    return float(certain.mean()), _accuracy(probabilities[certain], labels[certain])


def accuracy_at(probabilities: Floats, labels: Ints, coverage: float) -> float:
    """Accuracy of the most confident share of rows (El-Yaniv and Wiener, 2010)."""
    probabilities, labels = _labelled(probabilities, labels)
    order = np.argsort(-probabilities.max(axis=1), kind="stable")[: max(1, round(coverage * len(labels)))]
    return _accuracy(probabilities[order], labels[order])


@dataclass(frozen=True)
class ExpertFigures:
    """One mixture and one emotion. load: share of faces that each expert answered; the sum is top-k.
    entropy: mean entropy of the gate's softmax, in nats.
    """

    emotion: str
    load: tuple[float, ...]
    entropy: float
    samples: int


def experts_by_class(predicted: Predictions, labels: Ints, mixture: int) -> list[ExpertFigures]:
    """Which experts answer for which emotion; empty for networks without experts."""
    weights, scores = predicted.weights[:, mixture], predicted.scores[:, mixture]
    if not weights.any():
        return []
    entropy = -(scores * np.log(np.maximum(scores, 1e-12))).sum(axis=1)
    return [
        ExpertFigures(
            EMOTIONS[label],
            load=tuple(round(float(share), 4) for share in (weights[labels == label] > 0).mean(axis=0)),
            entropy=round(float(entropy[labels == label].mean()), 4),
            samples=int((labels == label).sum()),
        )
        for label in np.unique(labels[labels >= 0])
    ]


def bootstrapped(figure: Callable[[Floats, Ints], float], probabilities: Floats, labels: Ints) -> Metric:
    """A figure over the labelled rows, with its 95 % interval over resampled rows (fixed seed)."""
    probabilities, labels = _labelled(probabilities, labels)
    count = len(labels)
    if not count:
        return Metric(value=0.0, samples=0)
    generator = np.random.default_rng(0)
    draws = [
        figure(probabilities[chosen], labels[chosen])
        for chosen in (generator.integers(0, count, count) for _ in range(BOOTSTRAP_DRAWS))
    ]
    value = figure(probabilities, labels)
    # Noise of resampling raises a calibration error, so its draws are too high. Subtract this bias.
    low, high = (np.quantile(draws, [0.025, 0.975]) - (np.mean(draws) - value)).clip(0, 1)
    return Metric(
        value=round(value, 4), samples=count, interval=(round(float(low), 4), round(float(high), 4))
    )


def _labelled(probabilities: Floats, labels: Ints) -> tuple[Floats, Ints]:
    return probabilities[labels >= 0], labels[labels >= 0]


def _binned(probabilities: Floats, labels: Ints) -> tuple[Floats, Bools, Ints]:
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    return confidence, right, np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


# A bootstrap calls these 1,000 times. scikit-learn gives the same numbers in 9 to 29 times the time.


def _accuracy(probabilities: Floats, labels: Ints) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def _mean_recall(probabilities: Floats, labels: Ints) -> float:
    right = probabilities.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _macro_f1(probabilities: Floats, labels: Ints) -> float:
    """Mean over the emotions of F1, the harmonic mean of precision and recall."""
    answered = probabilities.argmax(axis=1)
    scores = []
    for label in np.unique(labels):
        hits = np.sum((answered == label) & (labels == label))
        scores.append(2 * hits / (np.sum(answered == label) + np.sum(labels == label)))
    return float(np.mean(scores))
