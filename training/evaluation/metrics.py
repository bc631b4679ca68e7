"""Figures with sample counts. Single numbers also have a 95 % bootstrap interval.

probabilities: float32 [N,C]; labels: int64 [N], indices of columns. Rows with label -1 are not counted.
shares: float32 [N,C], the share of the votes for each emotion. Rows without votes are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
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
    return bootstrapped(share_right, *_labelled(probabilities, labels))


def mean_class_accuracy(probabilities: Floats, labels: Ints) -> Metric:
    """Mean recall over the emotions (balanced accuracy)."""
    return bootstrapped(mean_recall, *_labelled(probabilities, labels))


def calibration_error(probabilities: Floats, shares: Floats) -> Metric:
    """Expected calibration error: see `expected_calibration_error`."""
    return bootstrapped(expected_calibration_error, *_voted(probabilities, shares))


def figures(
    predicted: Predictions, rows: LabelledFaces, label_emotions: int, threshold: float
) -> dict[str, Metric]:
    """The manifest's figures for one split.

    label_emotions: number of emotions of the data set's own labels, 0 without them.
    threshold: the verdict's, for `coverage` and `selective_accuracy`.
    Coverage and selective accuracy count all faces with votes; answers are right by `plurality_right`.
    """
    probabilities, majority, shares = predicted.probabilities, rows.majority, rows.distributions
    right, confidence = plurality(probabilities, rows)
    covered, reached = selective(right, confidence, threshold)
    measured = {
        "accuracy": accuracy(probabilities, majority),
        "plurality_accuracy": share_metric(right),
        "mean_class_accuracy": mean_class_accuracy(probabilities, majority),
        "macro_f1": bootstrapped(_macro_f1, *_labelled(probabilities, majority)),
        "ece": calibration_error(probabilities, shares),
        "ece_by_chance": calibration_error_by_chance(probabilities, shares),
        "ece_majority": calibration_error(probabilities, one_hot(majority, probabilities.shape[1])),
        "coverage": Metric(value=round(covered, 4), samples=len(right)),
        "selective_accuracy": Metric(value=round(reached, 4), samples=round(covered * len(right))),
        "selective_accuracy_at_80": Metric(
            value=round(accuracy_at(right, confidence, 0.8), 4), samples=round(0.8 * len(right))
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
    """Answers of similar confidence. share: mean share of the votes for them."""

    confidence: float
    share: float
    samples: int


def reliability(probabilities: Floats, shares: Floats) -> list[Bin]:
    """The non-empty bins of the expected calibration error, by rising confidence."""
    confidence, share, bins = _binned(*_voted(probabilities, shares))
    return [
        Bin(float(confidence[bins == b].mean()), float(share[bins == b].mean()), int((bins == b).sum()))
        for b in np.unique(bins)
    ]


def expected_calibration_error(probabilities: Floats, shares: Floats) -> float:
    """Mean gap of confidence and share of votes over equal-width bins (Guo et al., 2017).

    With one vote per row, the share is the accuracy.
    """
    confidence, share, bins = _binned(probabilities, shares)
    gaps = np.bincount(bins, weights=share - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(shares))


def calibration_error_by_chance(probabilities: Floats, shares: Floats) -> Metric:
    """The expected calibration error that perfect calibration would show on as many rows.

    A bin's mean gap is then normal around 0, and its expected size follows from the spread of its rows.
    """
    confidence, share, bins = _binned(*_voted(probabilities, shares))
    gaps = share - confidence
    size = sum(gaps[bins == b].std() * np.sqrt(2 / np.pi * (bins == b).sum()) for b in np.unique(bins))
    return Metric(value=round(float(size) / max(1, len(gaps)), 4), samples=len(gaps))


def share_metric(right: Bools) -> Metric:
    """A share with Wilson's 95 % interval (Wilson, 1927).

    When no answer is right, a bootstrap interval has width 0, even for a dozen faces.
    """
    if not len(right):
        return Metric(value=0.0, samples=0)
    test = binomtest(int(right.sum()), len(right))
    low, high = test.proportion_ci(method="wilson")
    interval = round(float(low), 4), round(float(high), 4)
    return Metric(value=round(test.statistic, 4), samples=len(right), interval=interval)


def plurality(probabilities: Floats, rows: LabelledFaces) -> tuple[Bools, Floats]:
    """(right, confidence) of the answers for all rows with votes, as `plurality_right` says."""
    voted = rows.all_votes.sum(axis=1) > 0
    return plurality_right(probabilities[voted], rows.all_votes[voted]), probabilities[voted].max(axis=1)


def plurality_right(probabilities: Floats, votes: Ints) -> Bools:
    """bool [N]: whether no emotion, nor unknown or not a face, has more votes than the answer.

    votes: [N,10] as `LabelledFaces` has them.
    """
    answered = np.take_along_axis(votes, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
    right: Bools = (answered > 0) & (answered == votes.max(axis=1))
    return right


def selective(right: Bools, confidence: Floats, threshold: float) -> tuple[float, float]:
    """(coverage, accuracy) of the answers with a confidence of at least `threshold`."""
    certain = confidence >= threshold
    return (float(certain.mean()), float(right[certain].mean())) if certain.any() else (0.0, 0.0)


def accuracy_at(right: Bools, confidence: Floats, coverage: float) -> float:
    """Accuracy of the most confident share of rows (El-Yaniv and Wiener, 2010)."""
    order = np.argsort(-confidence, kind="stable")[: max(1, round(coverage * len(right)))]
    return float(right[order].mean())


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


def bootstrapped(figure: Callable[..., float], *rows: NDArray[Any]) -> Metric:
    """A figure over row-aligned arrays, with its 95 % interval over resampled rows (fixed seed)."""
    count = len(rows[0])
    if not count:
        return Metric(value=0.0, samples=0)
    generator = np.random.default_rng(0)
    draws = [
        figure(*(each[chosen] for each in rows))
        for chosen in (generator.integers(0, count, count) for _ in range(BOOTSTRAP_DRAWS))
    ]
    value = figure(*rows)
    # Noise of resampling raises a calibration error, so its draws are too high. Subtract this bias.
    low, high = (np.quantile(draws, [0.025, 0.975]) - (np.mean(draws) - value)).clip(0, 1)
    return Metric(
        value=round(value, 4), samples=count, interval=(round(float(low), 4), round(float(high), 4))
    )


def _labelled(probabilities: Floats, labels: Ints) -> tuple[Floats, Ints]:
    return probabilities[labels >= 0], labels[labels >= 0]


def _voted(probabilities: Floats, shares: Floats) -> tuple[Floats, Floats]:
    voted = shares.sum(axis=1) > 0
    return probabilities[voted], shares[voted]


def _binned(probabilities: Floats, shares: Floats) -> tuple[Floats, Floats, Ints]:
    confidence = probabilities.max(axis=1)
    share = np.take_along_axis(shares, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
    return confidence, share, np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


# A bootstrap calls these 1,000 times. scikit-learn gives the same numbers in 9 to 29 times the time.


def share_right(probabilities: Floats, labels: Ints) -> float:
    """Share of right answers; every row has a label."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def mean_recall(probabilities: Floats, labels: Ints) -> float:
    """Mean over the emotions of the share of its faces that are found; every row has a label."""
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
