"""Figures of an evaluation, compared with figures computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, recall_score

from service.core.manifest import EMOTIONS
from training.datasets.faces import Bools, Ints, LabelledFaces, Pictures, PixelPictures, one_hot
from training.evaluation.metrics import (
    accuracy,
    accuracy_at,
    by_class,
    calibration_error_by_chance,
    confusion_matrix,
    expected_calibration_error,
    experts_by_class,
    figures,
    labels_from_votes,
    plurality,
    reliability,
    selective,
)
from training.evaluation.predict import Floats, Predictions


def probabilities_of(answers: list[int], confidence: float = 0.6, classes: int = 8) -> Floats:
    """float32 [N,classes]: `confidence` for each row's answer, and equal shares for the other classes."""
    rows = np.full((len(answers), classes), (1 - confidence) / (classes - 1), np.float32)
    rows[np.arange(len(answers)), answers] = confidence
    return rows


def faces(majority: list[int], labels: list[int] | None = None) -> LabelledFaces:
    count = len(majority)
    return LabelledFaces(
        PixelPictures(np.zeros((count, 48, 48), np.uint8)),
        np.array([str(row) for row in range(count)]),
        np.array(labels or [0] * count),
        one_hot(majority),
        np.array(majority),
        np.arange(count),
    )


def predictions(probabilities: Floats, label_probabilities: Floats | None = None) -> Predictions:
    gates = np.zeros((len(probabilities), 2, 4), np.float32)
    if label_probabilities is None:
        label_probabilities = np.zeros((len(probabilities), 0), np.float32)
    return Predictions(probabilities, label_probabilities, probabilities, gates, gates, probabilities)


def figures_of(probabilities: Floats, rows: LabelledFaces, threshold: float = 0.5) -> dict[str, float]:
    label_probabilities = probabilities_of(rows.labels.tolist(), classes=7)
    found = figures(predictions(probabilities, label_probabilities), rows, 7, threshold)
    return {name: metric.value for name, metric in found.items()}


def test_figures_by_hand() -> None:
    found = figures_of(probabilities_of([0, 1, 1, 1]), faces([0, 0, 1, 1]))
    assert found["accuracy"] == 0.75
    assert found["mean_class_accuracy"] == 0.75  # 1/2 of class 0, 2/2 of class 1
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2, abs=1e-4)
    assert found["ece"] == pytest.approx(abs(0.75 - 0.6), abs=1e-4)


def test_rare_classes_weigh_as_much_as_frequent_ones() -> None:
    found = figures_of(probabilities_of([0] * 10), faces([0] * 9 + [1]))
    assert found["accuracy"] == 0.9
    assert found["mean_class_accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 * 9 / 19 + 0) / 2, abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_figures_equal_those_of_scikit_learn(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.metrics.BOOTSTRAP_DRAWS", 1)
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(8, 0.5), 60).astype(np.float32)
    # Some emotions have answers without labels.
    labels, answers = generator.integers(0, 2 + seed % 7, 60), probabilities.argmax(axis=1)
    found = figures_of(probabilities, faces(labels.tolist()))
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, answers), abs=1e-4)
    for name, score in (("mean_class_accuracy", recall_score), ("macro_f1", f1_score)):
        expected = score(labels, answers, labels=np.unique(labels), average="macro", zero_division=0)
        assert found[name] == pytest.approx(expected, abs=1e-4), name


def test_rows_without_a_label_are_not_counted() -> None:
    metric = accuracy(probabilities_of([0, 1, 2, 3]), np.array([0, 1, -1, 0]))
    assert metric.value == pytest.approx(2 / 3, abs=1e-4)
    assert metric.samples == 3


def test_the_original_labels_are_predicted_without_contempt() -> None:
    contempt, anger = EMOTIONS.index("contempt"), EMOTIONS.index("anger")
    probabilities = probabilities_of([contempt, anger, anger])
    probabilities[0, anger] = 0.3
    labels = [EMOTIONS.index(name) for name in ("anger", "anger", "fear")]
    found = figures_of(probabilities, faces([0, 0, 0], labels))
    assert found["original_labels_main_head"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["original_labels_label_head"] == 1


def test_calibration_error_by_hand() -> None:
    confidence = [0.95, 0.95, 0.55]
    rows = np.array([[p, 1 - p] for p in confidence], np.float32)
    # The bin of 0.95 has two rows. One of them is right, which is a gap of 0.45.
    # The bin of 0.55 has one row, which is right: a gap of 0.45.
    assert expected_calibration_error(rows, one_hot([0, 1, 0], 2)) == pytest.approx(0.45, abs=1e-6)


def test_calibration_errors_cancel_only_within_a_bin() -> None:
    one_bin = np.array([[0.75, 0.25]] * 4, np.float32)
    assert expected_calibration_error(one_bin, one_hot([0, 0, 0, 1], 2)) == pytest.approx(0, abs=1e-6)
    two_bins = np.array([[0.75, 0.25], [0.95, 0.05]], np.float32)
    assert expected_calibration_error(two_bins, one_hot([0, 1], 2)) == pytest.approx(
        (0.25 + 0.95) / 2, abs=1e-6
    )


def test_full_confidence_has_a_bin() -> None:
    rows = np.array([[1, 0], [1, 0]], np.float32)
    assert expected_calibration_error(rows, one_hot([0, 0], 2)) == 0
    assert expected_calibration_error(rows, one_hot([1, 1], 2)) == 1


def test_selective_by_hand() -> None:
    right, confidence = np.array([True, False, False]), np.array([0.9, 0.8, 0.6], np.float32)
    assert selective(right, confidence, 0.5) == pytest.approx((1, 1 / 3))
    assert selective(right, confidence, 0.7) == pytest.approx((2 / 3, 1 / 2))
    assert selective(right, confidence, float(np.float32(0.9))) == pytest.approx((1 / 3, 1))
    assert selective(right, confidence, 0.91) == (0, 0)


def test_plurality_counts_every_face_with_votes() -> None:
    """A tie is right. Unknown and not a face are answers, too; a face without votes is not counted."""
    votes = np.zeros((5, 10), np.int64)
    votes[0, [0, 1]] = 5, 5
    votes[1, [1, 8]] = 4, 6
    votes[2, 9] = 10
    votes[3, [2, 1]] = 3, 7
    rows = replace(faces([-1, -1, -1, 1, -1]), votes=votes)
    right, confidence = plurality(probabilities_of([0, 1, 1, 1, 1]), rows)
    assert right.tolist() == [True, False, False, True]
    assert confidence == pytest.approx(0.6)
    without_votes, _ = plurality(probabilities_of([0, 1, 2]), faces([0, 0, -1]))
    assert without_votes.tolist() == [True, False]


def test_figures_stand_beside_each_other_for_majority_plurality_and_shares() -> None:
    votes = np.zeros((4, 10), np.int64)
    votes[:, 0], votes[:, 1] = (10, 4, 3, 5), (0, 3, 7, 5)
    rows = replace(
        faces([0, -1, 1, -1]),
        votes=votes,
        distributions=(votes[:, :8] / votes.sum(axis=1, keepdims=True)).astype(np.float32),
    )
    found = figures_of(probabilities_of([0, 0, 0, 0]), rows, threshold=0.5)
    assert found["accuracy"] == 0.5
    assert found["plurality_accuracy"] == found["selective_accuracy"] == 0.75
    assert found["coverage"] == 1
    share = (10 / 10 + 4 / 7 + 3 / 10 + 5 / 10) / 4
    assert found["ece"] == pytest.approx(abs(share - 0.6), abs=1e-4)
    assert found["ece_majority"] == pytest.approx(0.1, abs=1e-4)


def test_perfect_calibration_shows_the_error_of_chance() -> None:
    errors, expected = [], []
    for seed in range(40):
        probabilities, labels = calibrated(seed)
        shares = one_hot(labels)
        errors.append(expected_calibration_error(probabilities, shares))
        expected.append(calibration_error_by_chance(probabilities, shares).value)
    assert np.mean(errors) == pytest.approx(np.mean(expected), rel=0.1)


def calibrated(seed: int, count: int = 1000) -> tuple[Floats, Ints]:
    """Probabilities and labels. An answer is right as often as its confidence says."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.2, 1, count)
    rows = np.repeat((1 - confidence)[:, None] / 7, 8, axis=1)
    rows[:, 0] = confidence
    return rows.astype(np.float32), np.where(generator.random(count) < confidence, 0, 1)


@pytest.mark.parametrize("seed", [0, 24])
def test_every_value_is_in_its_interval(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.metrics.BOOTSTRAP_DRAWS", 300)
    probabilities, labels = calibrated(seed)
    rows = faces(labels.tolist(), [0, 3] * 500)
    found = figures(predictions(probabilities, probabilities[:, :7]), rows, 7, 0.5)
    with_interval = {name: metric for name, metric in found.items() if metric.interval is not None}
    assert {"accuracy", "ece", "macro_f1", "original_labels_label_head"} <= set(with_interval)
    for name, metric in with_interval.items():
        assert metric.samples == 1000
        assert metric.interval is not None
        low, high = metric.interval
        assert 0 <= low <= metric.value <= high <= 1, name


def test_an_interval_is_as_wide_as_the_binomial_interval() -> None:
    metric = accuracy(probabilities_of([0] * 400), np.array([0] * 300 + [1] * 100))
    assert metric.interval is not None
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert metric.interval == pytest.approx((0.75 - half, 0.75 + half), abs=0.01)


def test_intervals_are_reproducible() -> None:
    probabilities, labels = calibrated(0)
    assert accuracy(probabilities, labels) == accuracy(probabilities, labels)


def test_confusion_and_classes_by_hand() -> None:
    probabilities, labels = probabilities_of([0, 1, 1, 1, 2], classes=3), np.array([0, 0, 1, 1, -1])
    assert confusion_matrix(probabilities, labels).tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    neutral, happiness, surprise = by_class(probabilities, labels)
    assert (neutral.precision, neutral.recall, neutral.samples) == (1, 0.5, 2)
    assert happiness.precision == pytest.approx(2 / 3, abs=1e-4)
    assert happiness.recall == 1
    assert happiness.f1 == pytest.approx(0.8)
    assert (surprise.emotion, surprise.f1, surprise.samples) == ("surprise", 0, 0)
    assert isinstance(surprise.samples, int)


def test_reliability_bins_have_every_row_and_give_the_calibration_error() -> None:
    probabilities, labels = calibrated(3)
    bins = reliability(probabilities, one_hot(labels))
    assert sum(b.samples for b in bins) == 1000
    gap = sum(b.samples * abs(b.share - b.confidence) for b in bins) / 1000
    assert gap == pytest.approx(expected_calibration_error(probabilities, one_hot(labels)), abs=1e-6)
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)


def test_accuracy_at_a_coverage_takes_the_most_confident_answers() -> None:
    right = np.array([True, False, True, False])
    confidence = np.array([0.9, 0.6, 0.8, 0.7], np.float32)
    assert [accuracy_at(right, confidence, share) for share in (0.25, 0.5, 0.75, 1)] == [
        1,
        1,
        pytest.approx(2 / 3),
        0.5,
    ]


@given(st.integers(0, 2**31), st.floats(0.05, 1))
def test_accuracy_at_a_coverage_equals_accuracy_at_its_threshold(seed: int, share: float) -> None:
    right, confidence = answered(*calibrated(seed % 1000, 200))
    threshold = float(np.sort(confidence)[::-1][round(share * 200) - 1])
    assert accuracy_at(right, confidence, share) == pytest.approx(selective(right, confidence, threshold)[1])


def answered(probabilities: Floats, labels: Ints) -> tuple[Bools, Floats]:
    return probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)


def test_expert_load_and_entropy_by_hand() -> None:
    weights = np.zeros((3, 2, 4), np.float32)
    weights[0, 1, [0, 1]] = 0.5
    weights[1, 1, [0, 2]] = 0.5
    weights[2, 1, [2, 3]] = 0.5
    scores = np.full((3, 2, 4), 0.25, np.float32)
    scores[2, 1] = [0, 0, 1, 0]
    predicted = predictions(probabilities_of([0, 0, 0]))._replace(weights=weights, scores=scores)
    neutral, anger = experts_by_class(predicted, np.array([0, 0, 4]), 1)
    assert (neutral.emotion, neutral.load, neutral.samples) == ("neutral", (1.0, 0.5, 0.5, 0.0), 2)
    assert neutral.entropy == pytest.approx(np.log(4), abs=1e-4)
    assert anger.load == (0, 0, 1, 1)
    assert anger.entropy == pytest.approx(0, abs=1e-4)
    assert experts_by_class(predictions(probabilities_of([0])), np.array([0]), 0) == []


LABELS, COUNT = 4, 2000
# The shares of ten votes per image, and the answer with the most votes.
VOTES = (np.random.default_rng(0).multinomial(10, [0.4, 0.3, 0.2, 0.1], COUNT) / 10).astype(np.float32)
MAJORITY = VOTES.argmax(axis=1)


def accuracy_of(labels: NDArray[np.int64]) -> float:
    """Fit on the first half of the images. Returns the accuracy on the second half."""
    half = COUNT // 2
    return labels_from_votes(rows_of(slice(half), labels), rows_of(slice(half, COUNT), labels), LABELS).value


def rows_of(part: slice, labels: NDArray[np.int64]) -> LabelledFaces:
    names = np.arange(COUNT).astype(str)[part]
    no_pictures = cast(Pictures, None)
    return LabelledFaces(no_pictures, names, labels[part], VOTES[part], MAJORITY[part], np.arange(len(names)))


def test_labels_that_follow_the_votes_are_predicted() -> None:
    assert accuracy_of(MAJORITY) > 0.95


def test_labels_that_are_independent_of_the_votes_are_not_predicted() -> None:
    assert accuracy_of(np.random.default_rng(1).integers(0, LABELS, COUNT)) < 0.35


def test_half_of_the_labels_are_predicted_if_the_votes_fit_half() -> None:
    changed = np.random.default_rng(1).random(COUNT) < 0.5
    assert 0.4 < accuracy_of(np.where(changed, (MAJORITY + 1) % LABELS, MAJORITY)) < 0.6
