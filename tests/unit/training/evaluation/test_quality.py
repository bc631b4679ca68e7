"""Quality limits are set only where poor pictures cost accuracy and low confidence does not show the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from service.core.manifest import (
    ClassifierManifest,
    Metric,
    QualityLimit,
    QualityLimits,
    QualityMeasure,
    read_manifest,
)
from service.settings import Settings
from training.datasets.faces import LabelledFaces, PixelPictures, one_hot
from training.evaluation.corruptions import Corruption
from training.evaluation.networks import load_served
from training.evaluation.poor_pictures import CLEAN, CORRUPTIONS, FOUND, MEASURES, NOT_FACE, Answers, Probe
from training.evaluation.quality import CANDIDATES, beyond, choose_limits, confirm
from training.framing import PhotoCropper, crop_each
from training.not_faces import NOT_FACES

THRESHOLD = 0.6
COUNT = 6000


def rows(
    kind: str,
    values: NDArray[np.floating],
    accuracy: NDArray[np.floating],
    confidence: NDArray[np.floating] | float = 0.9,
) -> Answers:
    """Answers whose measures all have the same values."""
    right = np.random.default_rng(1).random(len(values)) < accuracy
    measured = dict.fromkeys(MEASURES, values.astype(np.float32))
    return Answers(
        np.full(len(values), kind), measured, right, np.broadcast_to(np.float32(confidence), len(values))
    )


def chosen_limit(measure: QualityMeasure, *answers: Answers) -> QualityLimit:
    """The first limit on `measure`."""
    limits = choose_limits(Answers.joined(answers), THRESHOLD, "made up").limits
    return next(limit for limit in limits if limit.measure == measure)


def of_kind(kind: str, answers: Answers) -> Answers:
    return replace(answers, kind=np.full(len(answers.right), kind))


def uniform(low: float, high: float) -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(low, high, COUNT)


SHARP = rows(CLEAN, uniform(0.5, 1), np.full(COUNT, 0.9))


def test_a_limit_is_set_where_certain_answers_begin_to_fail() -> None:
    values = uniform(0, 1)
    limit = chosen_limit(
        "sharpness",
        *(SHARP, of_kind(FOUND, SHARP)),
        rows("blurred", values, np.where(values < 0.3, 0.6, 0.9)),
        rows("too_dark", values, np.zeros(COUNT)),
    )
    assert limit.min == pytest.approx(0.3, abs=0.1)
    assert limit.max is None
    assert sum(band.samples for band in limit.bands) == 2 * COUNT  # the limit has its own corruptions only
    poorest = limit.bands[0]
    assert poorest.certain_accuracy == poorest.accuracy == pytest.approx(0.6, abs=0.05)
    assert poorest.confidence == pytest.approx(0.9)
    assert [band.low for band in limit.bands[1:]] == [band.high for band in limit.bands[:-1]]


def test_no_limit_is_set_where_answers_stay_right() -> None:
    values = uniform(0, 1)
    blurred = rows("blurred", values, np.where(values < 0.3, 0.85, 0.9))
    limit = chosen_limit("sharpness", SHARP, of_kind(FOUND, SHARP), blurred)
    assert (limit.min, limit.max) == (None, None)
    assert limit.bands


def test_no_limit_is_set_where_low_confidence_shows_the_loss() -> None:
    values = uniform(0, 1)
    blurred = rows("blurred", values, np.where(values < 0.3, 0.5, 0.9), np.where(values < 0.3, 0.5, 0.9))
    # Half of the poor faces still have certain answers. These are right as often as those of clean faces.
    certain = np.random.default_rng(2).random(COUNT) < 0.5
    blurred = replace(
        blurred,
        right=blurred.right | (certain & (np.random.default_rng(3).random(COUNT) < 0.8)),
        confidence=np.where(certain, np.float32(0.9), blurred.confidence),
    )
    limit = chosen_limit("sharpness", SHARP, of_kind(FOUND, SHARP), blurred)
    assert limit.min is None
    assert limit.bands[0].accuracy < 0.85


def test_a_limit_holds_back_only_few_of_the_clean_faces() -> None:
    values = uniform(0, 1)
    clean = rows(CLEAN, values, np.full(COUNT, 0.9))
    blurred = rows("blurred", values, np.where(values < 0.5, 0.0, 0.9))
    assert chosen_limit("sharpness", clean, of_kind(FOUND, clean), blurred).min == pytest.approx(
        0.01, abs=0.003
    )
    # The measure is unknown for the faces that the detector finds.
    found = rows(FOUND, np.full(COUNT, np.nan), np.full(COUNT, 0.9))
    assert chosen_limit("sharpness", clean, found, blurred).min == pytest.approx(0.5, abs=0.1)


def test_a_limit_on_pitch_ignores_the_direction() -> None:
    values = uniform(-1, 1)
    # Nearly all faces look ahead, because a limit may hold back only few clean faces.
    ahead = rows(FOUND, uniform(-0.2, 0.2), np.full(COUNT, 0.9))
    turned = rows(FOUND, values, np.where(np.abs(values) > 0.9, 0.3, 0.9))
    limit = chosen_limit("pitch", ahead, ahead, ahead, turned)
    assert limit.min is None
    assert limit.max == pytest.approx(0.92, abs=0.06)


def test_profiles_are_beyond_the_limit_of_yaw() -> None:
    assert chosen_limit("yaw", rows(FOUND, uniform(-1, 1), np.full(COUNT, 0.9))).max == 0.99


def test_faces_beyond_a_limit_are_held_back_and_counted() -> None:
    values = uniform(0, 1)
    found, blurred = of_kind(FOUND, SHARP), rows("blurred", values, np.where(values < 0.3, 0.5, 0.9))
    limit = chosen_limit("sharpness", SHARP, found, blurred)
    limits = QualityLimits(limits=(limit,), rule="one", data="made up")
    assert limit.min is not None
    assert (beyond(limits, blurred) == (values.astype(np.float32) < limit.min)).all()
    assert not beyond(limits, SHARP).any()
    unknown = rows(NOT_FACE, np.full(100, np.nan), np.zeros(100))
    assert not beyond(limits, unknown).any()
    figures = confirm(Answers.joined([SHARP, found, blurred, unknown]), limits, THRESHOLD)
    assert figures["quality"]["coverage"] == figures["quality"]["coverage_without_limits"]
    assert figures["quality"]["held_back_accuracy"].samples == 0
    assert figures["quality_not_faces"]["coverage"] == Metric(value=1, samples=100)
    poor = figures["quality_corrupted"]
    assert poor["coverage"].value == pytest.approx(1 - limit.min, abs=0.03)
    assert poor["coverage"].samples == COUNT
    assert poor["held_back_accuracy"].value == pytest.approx(0.5, abs=0.05)
    assert poor["selective_accuracy"].value > poor["selective_accuracy_without_limits"].value + 0.05


def fer_like(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The astronaut's face, framed as in FER-2013."""
    crop = Image.fromarray(astronaut).crop((168, 60, 280, 172)).convert("L")
    return np.asarray(crop.resize((48, 48), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def probe(astronaut: NDArray[np.uint8]) -> Probe:
    """Four copies of one smiling face, one of them without a label. The model always answers happiness.

    The model's gates and hints are those of the shipped model.
    """
    repository = Settings().model_repository
    manifest = read_manifest(repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)

    shipped = load_served(repository, manifest)

    def happy(faces: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        probabilities = torch.tensor([0.1, 0.9, 0, 0, 0, 0, 0, 0]).expand(len(faces), 8)
        return probabilities, *shipped(faces)[1:]

    labels = np.array([1, 1, 0, -1])
    faces = LabelledFaces(
        PixelPictures(np.stack([fer_like(astronaut)] * 4)),
        names=np.array(list("abcd")),
        labels=labels,
        distributions=one_hot(labels),
        majority=labels,
        group=np.arange(4),
    )
    crops = crop_each(faces.pictures, PhotoCropper(repository), manifest.input)
    return Probe(happy, manifest.input, manifest.prior, faces, crops)


def test_faces_are_detected_and_cropped(probe: Probe) -> None:
    found = probe.found()
    assert found.right.tolist() == [True, True, False]
    assert np.isnan(found.measured["size_px"]).all()
    assert 0.6 * 48 < probe.clean().measured["size_px"].max() < 48
    assert found.measured["face_likeness"].min() > 0.5
    assert np.abs(found.measured["yaw"]).max() < 0.3


def test_every_answer_for_a_picture_without_a_face_is_wrong_and_its_size_is_unknown(probe: Probe) -> None:
    for kind in NOT_FACES.values():
        answers = probe.not_faces(kind)
        assert not answers.right.any()
        assert np.isnan(answers.measured["size_px"]).all()


@pytest.mark.parametrize(
    "corruption", CORRUPTIONS, ids=lambda corruption: f"{corruption.name}-{corruption.apply.__name__}"
)
def test_each_corruption_moves_its_measure_to_the_poor_end(probe: Probe, corruption: Corruption) -> None:
    weak, strong = (
        probe.corrupted(corruption, strength)
        for strength in (corruption.strengths[0], corruption.strengths[-1])
    )
    measure, poor_end = next((found, end) for code, found, end, _ in CANDIDATES if code == corruption.name)
    values = [part.measured[measure].mean() for part in (probe.clean(), weak, strong)]
    worse = sorted(values, reverse=poor_end == "min")
    assert values == worse
    assert len(set(values)) == 3
    assert sorted(weak.right.tolist()) == [False, True, True]
