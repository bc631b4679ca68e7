"""Figures, worked by hand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.manifest import EMOTIONS
from training.datasets.fer2013 import FER2013_LABELS, FaceImages
from training.evaluate import (
    Floats,
    Ints,
    Predictions,
    accuracy,
    evaluate,
    expected_calibration_error,
    predict,
    selective,
)


def sure_of(answers: list[int], confidence: float = 0.6, classes: int = 8) -> Floats:
    rows = np.full((len(answers), classes), (1 - confidence) / (classes - 1), np.float32)
    rows[np.arange(len(answers)), answers] = confidence
    return rows


def faces(majority: list[int], labels: list[int] | None = None) -> FaceImages:
    count = len(majority)
    return FaceImages(
        np.zeros((count, 48, 48), np.uint8),
        np.array(labels or [0] * count),
        np.zeros((count, 8), np.float32),
        np.array(majority),
        np.arange(count),
    )


def evaluated(probabilities: Floats, rows: FaceImages) -> dict[str, dict[str, float]]:
    auxiliary = sure_of(rows.labels.tolist(), classes=7)
    figures = evaluate(Predictions(probabilities, auxiliary, probabilities), rows)
    return {kind: {name: metric.value for name, metric in part.items()} for kind, part in figures.items()}


def test_figures_by_hand() -> None:
    found = evaluated(sure_of([0, 1, 1, 1]), faces([0, 0, 1, 1]))["ferplus"]
    assert found["accuracy"] == 0.75
    assert found["mean_class_accuracy"] == 0.75  # 1/2 of class 0, 2/2 of class 1
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2, abs=1e-4)
    assert found["ece"] == pytest.approx(abs(0.75 - 0.6), abs=1e-4)


def test_classes_weigh_alike_however_rare() -> None:
    found = evaluated(sure_of([0] * 10), faces([0] * 9 + [1]))["ferplus"]
    assert found["accuracy"] == 0.9
    assert found["mean_class_accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 * 9 / 19 + 0) / 2, abs=1e-4)


def test_rows_without_a_label_are_not_counted() -> None:
    metric = accuracy(sure_of([0, 1, 2, 3]), np.array([0, 1, -1, 0]))
    assert metric.value == pytest.approx(2 / 3, abs=1e-4)
    assert metric.samples == 3


def test_the_original_labels_are_answered_without_contempt() -> None:
    contempt, anger = EMOTIONS.index("contempt"), EMOTIONS.index("anger")
    probabilities = sure_of([contempt, anger, anger])
    probabilities[0, anger] = 0.3
    labels = [FER2013_LABELS.index(name) for name in ("anger", "anger", "fear")]
    found = evaluated(probabilities, faces([0, 0, 0], labels))["fer2013"]
    assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["accuracy_of_training_only_head"] == 1


def test_calibration_error_by_hand() -> None:
    confidence = [0.95, 0.95, 0.55]
    rows = np.float32([[p, 1 - p] for p in confidence])
    # Bin of 0.95: one of two right, gap 0.45, twice; bin of 0.55: right, gap 0.45.
    assert expected_calibration_error(rows, np.array([0, 1, 0])) == pytest.approx(0.45, abs=1e-6)


def test_calibration_error_cancels_within_a_bin_only() -> None:
    one_bin = np.float32([[0.75, 0.25]] * 4)
    assert expected_calibration_error(one_bin, np.array([0, 0, 0, 1])) == pytest.approx(0, abs=1e-6)
    two_bins = np.float32([[0.75, 0.25], [0.95, 0.05]])
    assert expected_calibration_error(two_bins, np.array([0, 1])) == pytest.approx(
        (0.25 + 0.95) / 2, abs=1e-6
    )


def test_full_confidence_has_a_bin_too() -> None:
    rows = np.float32([[1, 0], [1, 0]])
    assert expected_calibration_error(rows, np.array([0, 0])) == 0
    assert expected_calibration_error(rows, np.array([1, 1])) == 1


def test_selective_by_hand() -> None:
    rows = np.float32([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.95, 0.05]])
    labels = np.array([0, 1, 1, -1])
    assert selective(rows, labels, 0.5) == pytest.approx((1, 1 / 3))
    assert selective(rows, labels, 0.7) == pytest.approx((2 / 3, 1 / 2))
    assert selective(rows, labels, float(np.float32(0.9))) == pytest.approx((1 / 3, 1))
    assert selective(rows, labels, 0.91) == (0, 0)


def calibrated(seed: int, count: int = 1000) -> tuple[Floats, Ints]:
    """Answers that are right exactly as often as they say."""
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.2, 1, count)
    rows = np.repeat((1 - confidence)[:, None] / 7, 8, axis=1)
    rows[:, 0] = confidence
    return rows.astype(np.float32), np.where(generator.random(count) < confidence, 0, 1)


@pytest.mark.parametrize("seed", [0, 24])
def test_every_value_lies_in_its_interval(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluate.BOOTSTRAP_DRAWS", 300)
    probabilities, labels = calibrated(seed)
    rows = faces(labels.tolist(), [0, 3] * 500)
    for figures in evaluate(Predictions(probabilities, probabilities[:, :7], probabilities), rows).values():
        for name, metric in figures.items():
            assert metric.samples == 1000
            assert metric.interval is not None
            low, high = metric.interval
            assert 0 <= low <= metric.value <= high <= 1, name


def test_an_interval_has_the_width_of_the_binomial_one() -> None:
    metric = accuracy(sure_of([0] * 400), np.array([0] * 300 + [1] * 100))
    assert metric.interval is not None
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert metric.interval == pytest.approx((0.75 - half, 0.75 + half), abs=0.01)


def test_intervals_can_be_reproduced() -> None:
    probabilities, labels = calibrated(0)
    assert accuracy(probabilities, labels) == accuracy(probabilities, labels)


class Answer(NamedTuple):
    logits: Tensor
    auxiliary: Tensor


class Bright(nn.Module):
    """Logits that tell how bright an image is; refuses to be asked in training mode."""

    def forward(self, images: Tensor) -> Answer:
        assert not self.training
        mean = images.mean(dim=(1, 2, 3))
        return Answer(torch.stack([mean, -mean], dim=1), torch.stack([mean, mean, mean], dim=1))


def flat(*brightness: int) -> NDArray[np.uint8]:
    return np.stack([np.full((48, 48), value, np.uint8) for value in brightness])


@pytest.mark.parametrize("batch", [1, 2, 256])
def test_predict_asks_in_batches_and_keeps_the_order(batch: int) -> None:
    found = predict(Bright().train(), flat(0, 51, 255), batch=batch)
    np.testing.assert_allclose(found.logits[:, 0], [0, 0.2, 1], atol=1e-6)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.auxiliary, 1 / 3, atol=1e-6)


def test_temperature_divides_the_logits_of_the_served_head() -> None:
    found = predict(Bright(), flat(255), temperature=2.0)
    np.testing.assert_allclose(found.logits, [[1, -1]], atol=1e-6)
    np.testing.assert_allclose(found.probabilities[0, 0], 1 / (1 + np.exp(-1)), atol=1e-6)
