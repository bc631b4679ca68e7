"""Limits are chosen where pictures cost right answers that confidence does not warn of, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from service.core.manifest import (
    TORCHSCRIPT,
    ClassifierManifest,
    QualityLimit,
    QualityLimits,
    QualityMeasure,
    read_manifest,
    verified_model_path,
)
from service.settings import Settings
from training.datasets.faces import LabelledFaces, PixelPictures, one_hot
from training.evaluation.poor_pictures import HARMS, Harm, Rows, Subject
from training.evaluation.quality import Shown, beyond, choose_limits, confirm
from training.framing import FaceDetector

THRESHOLD = 0.6
COUNT = 6000


def rows(
    measure: QualityMeasure,
    values: NDArray[np.floating],
    accuracy: NDArray[np.floating],
    *,
    confidence: NDArray[np.floating] | float = 0.9,
    clean: bool,
) -> Rows:
    right = np.random.default_rng(1).random(len(values)) < accuracy
    return Rows(
        {measure: values.astype(np.float32)},
        right,
        np.broadcast_to(np.float32(confidence), len(values)),
        np.full(len(values), clean),
    )


def chosen(measure: QualityMeasure, clean: Rows, harmed: Rows) -> QualityLimit:
    """The first limit on a measure where every code has these rows."""
    everything = Rows(
        {name: clean.measured[measure] for name in ALL},
        clean.right,
        clean.confidence,
        clean.clean,
    )
    poor = Rows(
        {name: harmed.measured[measure] for name in ALL}, harmed.right, harmed.confidence, harmed.clean
    )
    shown = Shown(everything, poor, everything, {harm.code: poor for harm in HARMS})
    limits = choose_limits(shown, THRESHOLD, "made up").limits
    return next(limit for limit in limits if limit.measure == measure)


ALL: tuple[QualityMeasure, ...] = (
    "size_px",
    "sharpness",
    "brightness",
    "contrast",
    "occlusion",
    "yaw",
    "pitch",
    "roll_degrees",
)


def spread(low: float, high: float) -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(low, high, COUNT)


def test_a_limit_lies_where_certain_answers_begin_to_fail() -> None:
    values = spread(0, 1)
    limit = chosen(
        "sharpness",
        rows("sharpness", spread(0.5, 1), np.full(COUNT, 0.9), clean=True),
        rows("sharpness", values, np.where(values < 0.3, 0.6, 0.9), clean=False),
    )
    assert limit.min == pytest.approx(0.3, abs=0.1)
    assert limit.max is None
    assert sum(band.samples for band in limit.bands) == 2 * COUNT
    poorest = limit.bands[0]
    assert poorest.certain_accuracy == poorest.accuracy == pytest.approx(0.6, abs=0.05)
    assert poorest.confidence == pytest.approx(0.9)
    assert [band.low for band in limit.bands[1:]] == [band.high for band in limit.bands[:-1]]


def test_there_is_no_limit_where_answers_stay_right() -> None:
    values = spread(0, 1)
    limit = chosen(
        "sharpness",
        rows("sharpness", spread(0.5, 1), np.full(COUNT, 0.9), clean=True),
        rows("sharpness", values, np.where(values < 0.3, 0.85, 0.9), clean=False),
    )
    assert (limit.min, limit.max) == (None, None)
    assert limit.bands


def test_there_is_no_limit_where_confidence_tells_it_already() -> None:
    values = spread(0, 1)
    right = np.where(values < 0.3, 0.5, 0.9)
    told = rows("sharpness", values, right, confidence=np.where(values < 0.3, 0.5, 0.9), clean=False)
    clean = rows("sharpness", spread(0.5, 1), np.full(COUNT, 0.9), clean=True)
    # Half of the poor faces are certain all the same, and those are right as often as others.
    sure = np.random.default_rng(2).random(COUNT) < 0.5
    told = Rows(
        told.measured,
        told.right | (sure & (np.random.default_rng(3).random(COUNT) < 0.8)),
        np.where(sure, np.float32(0.9), told.confidence),
        told.clean,
    )
    limit = chosen("sharpness", clean, told)
    assert limit.min is None
    assert limit.bands[0].accuracy < 0.85


def test_no_limit_takes_more_than_few_of_the_unharmed_faces() -> None:
    values = spread(0, 1)
    limit = chosen(
        "sharpness",
        rows("sharpness", values, np.full(COUNT, 0.9), clean=True),
        rows("sharpness", values, np.where(values < 0.5, 0.0, 0.9), clean=False),
    )
    assert limit.min == pytest.approx(0.01, abs=0.003)


def test_of_a_turn_the_amount_counts() -> None:
    values = spread(-1, 1)
    right = np.where(np.abs(values) > 0.9, 0.3, 0.9)
    # Nearly all look ahead: else the turned would be too many of the clean.
    ahead = rows("yaw", spread(-0.2, 0.2), np.full(COUNT, 0.9), clean=True)
    found = ahead.join(ahead).join(ahead).join(rows("yaw", values, right, clean=True))
    limit = chosen("yaw", found, found)
    assert limit.min is None
    assert limit.max == pytest.approx(0.92, abs=0.06)


def test_what_lies_beyond_a_limit_is_held_back_and_counted() -> None:
    values = spread(0, 1)
    clean = rows("sharpness", spread(0.5, 1), np.full(COUNT, 0.9), clean=True)
    harmed = rows("sharpness", values, np.where(values < 0.3, 0.5, 0.9), clean=False)
    shown = Shown(clean, harmed, clean, {harm.code: harmed for harm in HARMS})
    limit = chosen("sharpness", clean, harmed)
    limits = QualityLimits(limits=(limit,), rule="one", data="made up")
    assert limit.min is not None
    assert (beyond(limits, harmed) == (values.astype(np.float32) < limit.min)).all()
    assert not beyond(limits, clean).any()
    figures = confirm(shown, limits, THRESHOLD)
    assert figures["quality"]["coverage"] == figures["quality"]["coverage_without_limits"]
    assert figures["quality"]["held_back_accuracy"].samples == 0
    poor = figures["quality_harmed"]
    assert poor["coverage"].value == pytest.approx(1 - limit.min, abs=0.03)
    assert poor["held_back_accuracy"].value == pytest.approx(0.5, abs=0.05)
    assert poor["selective_accuracy"].value > poor["selective_accuracy_without_limits"].value + 0.05


def fer_like(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The astronaut's face as FER-2013 frames one."""
    crop = Image.fromarray(astronaut).crop((168, 60, 280, 172)).convert("L")
    return np.asarray(crop.resize((48, 48), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def subject(astronaut: NDArray[np.uint8]) -> Subject:
    """The shipped model before four copies of one smiling face, one of them without a label."""
    repository = Settings().model_repository
    manifest = read_manifest(repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)

    shipped = torch.jit.load(str(verified_model_path(repository, manifest, TORCHSCRIPT)))  # type: ignore[no-untyped-call]

    def happy(faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sure = torch.tensor([0.1, 0.9, 0, 0, 0, 0, 0, 0]).expand(len(faces), 8)
        return sure, *shipped(faces)[1:]

    labels = np.array([1, 1, 0, -1])
    faces = LabelledFaces(
        PixelPictures(np.stack([fer_like(astronaut)] * 4)),
        names=np.array(list("abcd")),
        labels=labels,
        distributions=one_hot(labels),
        majority=labels,
        group=np.arange(4),
    )
    detector = FaceDetector(repository)
    return Subject(happy, manifest, detector, faces)


def test_faces_are_found_and_turned_to_either_side(subject: Subject) -> None:
    level, share = subject.as_found()
    assert level.right.tolist() == [True, True, False]
    assert level.clean.all()
    assert 0.6 < share < 1
    assert np.abs(level.measured["roll_degrees"]).max() < 5
    turned, _ = subject.as_found(30)
    turn = turned.measured["roll_degrees"] - level.measured["roll_degrees"]
    # Every other face to the other side; the detector's landmarks follow a tilt by a small part of it only.
    assert turn[0] == pytest.approx(turn[2], abs=0.01)
    assert turn[1] - turn[0] > 2
    assert not turned.clean.any()


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: f"{harm.code}-{harm.apply.__name__}")
def test_each_harm_moves_its_measure_to_the_poor_end(subject: Subject, harm: Harm) -> None:
    weak, strong = (
        subject.harmed(harm, strength, 0.8) for strength in (harm.strengths[0], harm.strengths[-1])
    )
    values = [part.measured[harm.measure].mean() for part in (subject.clean(0.8), weak, strong)]
    worse = sorted(values, reverse=harm.code not in ("too_bright", "occluded"))
    assert values == worse
    assert len(set(values)) == 3
    assert weak.right.tolist() == [True, True, False]
