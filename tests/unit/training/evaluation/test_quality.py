"""Quality limits are set only where poor pictures cost accuracy and low confidence does not show the loss."""

from __future__ import annotations

from typing import get_args

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
from training.evaluation.poor_pictures import CORRUPTIONS, Corruption, Rows, ServedModelProbe
from training.evaluation.quality import ProbeResults, beyond, choose_limits, confirm
from training.framing import PhotoCropper
from training.not_faces import NOT_FACES

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


def chosen_limit(measure: QualityMeasure, clean: Rows, corrupted: Rows) -> QualityLimit:
    """Choose limits from these rows for every code, and return the first limit on `measure`."""
    clean_rows = Rows(
        {name: clean.measured[measure] for name in MEASURES},
        clean.right,
        clean.confidence,
        clean.clean,
    )
    corrupted_rows = Rows(
        {name: corrupted.measured[measure] for name in MEASURES},
        corrupted.right,
        corrupted.confidence,
        corrupted.clean,
    )
    by_code = {corruption.code: corrupted_rows for corruption in CORRUPTIONS}
    results = ProbeResults(clean_rows, clean_rows, by_code, corrupted_rows)
    limits = choose_limits(results, THRESHOLD, "made up").limits
    return next(limit for limit in limits if limit.measure == measure)


MEASURES: tuple[QualityMeasure, ...] = get_args(QualityMeasure)


def uniform(low: float, high: float) -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(low, high, COUNT)


def test_a_limit_is_set_where_certain_answers_begin_to_fail() -> None:
    values = uniform(0, 1)
    limit = chosen_limit(
        "sharpness",
        rows("sharpness", uniform(0.5, 1), np.full(COUNT, 0.9), clean=True),
        rows("sharpness", values, np.where(values < 0.3, 0.6, 0.9), clean=False),
    )
    assert limit.min == pytest.approx(0.3, abs=0.1)
    assert limit.max is None
    assert sum(band.samples for band in limit.bands) == 2 * COUNT
    poorest = limit.bands[0]
    assert poorest.certain_accuracy == poorest.accuracy == pytest.approx(0.6, abs=0.05)
    assert poorest.confidence == pytest.approx(0.9)
    assert [band.low for band in limit.bands[1:]] == [band.high for band in limit.bands[:-1]]


def test_no_limit_is_set_where_answers_stay_right() -> None:
    values = uniform(0, 1)
    limit = chosen_limit(
        "sharpness",
        rows("sharpness", uniform(0.5, 1), np.full(COUNT, 0.9), clean=True),
        rows("sharpness", values, np.where(values < 0.3, 0.85, 0.9), clean=False),
    )
    assert (limit.min, limit.max) == (None, None)
    assert limit.bands


def test_no_limit_is_set_where_low_confidence_shows_the_loss() -> None:
    values = uniform(0, 1)
    right = np.where(values < 0.3, 0.5, 0.9)
    corrupted = rows("sharpness", values, right, confidence=np.where(values < 0.3, 0.5, 0.9), clean=False)
    clean = rows("sharpness", uniform(0.5, 1), np.full(COUNT, 0.9), clean=True)
    # Half of the poor faces still have certain answers. These are right as often as those of clean faces.
    certain = np.random.default_rng(2).random(COUNT) < 0.5
    corrupted = Rows(
        corrupted.measured,
        corrupted.right | (certain & (np.random.default_rng(3).random(COUNT) < 0.8)),
        np.where(certain, np.float32(0.9), corrupted.confidence),
        corrupted.clean,
    )
    limit = chosen_limit("sharpness", clean, corrupted)
    assert limit.min is None
    assert limit.bands[0].accuracy < 0.85


def test_a_limit_holds_back_only_few_of_the_clean_faces() -> None:
    values = uniform(0, 1)
    limit = chosen_limit(
        "sharpness",
        rows("sharpness", values, np.full(COUNT, 0.9), clean=True),
        rows("sharpness", values, np.where(values < 0.5, 0.0, 0.9), clean=False),
    )
    assert limit.min == pytest.approx(0.01, abs=0.003)


def test_a_limit_on_pitch_ignores_the_direction() -> None:
    values = uniform(-1, 1)
    right = np.where(np.abs(values) > 0.9, 0.3, 0.9)
    # Nearly all faces look ahead, because a limit may hold back only few clean faces.
    ahead = rows("pitch", uniform(-0.2, 0.2), np.full(COUNT, 0.9), clean=True)
    found = ahead.join(ahead).join(ahead).join(rows("pitch", values, right, clean=True))
    limit = chosen_limit("pitch", found, found)
    assert limit.min is None
    assert limit.max == pytest.approx(0.92, abs=0.06)


def test_profiles_are_beyond_the_limit_of_yaw() -> None:
    values = rows("yaw", uniform(-1, 1), np.full(COUNT, 0.9), clean=True)
    assert chosen_limit("yaw", values, values).max == 0.99


def test_faces_beyond_a_limit_are_held_back_and_counted() -> None:
    values = uniform(0, 1)
    clean = rows("sharpness", uniform(0.5, 1), np.full(COUNT, 0.9), clean=True)
    corrupted = rows("sharpness", values, np.where(values < 0.3, 0.5, 0.9), clean=False)
    results = ProbeResults(
        clean, clean, {corruption.code: corrupted for corruption in CORRUPTIONS}, corrupted
    )
    limit = chosen_limit("sharpness", clean, corrupted)
    limits = QualityLimits(limits=(limit,), rule="one", data="made up")
    assert limit.min is not None
    assert (beyond(limits, corrupted) == (values.astype(np.float32) < limit.min)).all()
    assert not beyond(limits, clean).any()
    figures = confirm(results, limits, THRESHOLD)
    assert figures["quality"]["coverage"] == figures["quality"]["coverage_without_limits"]
    assert figures["quality"]["held_back_accuracy"].samples == 0
    poor = figures["quality_corrupted"]
    assert poor["coverage"].value == pytest.approx(1 - limit.min, abs=0.03)
    assert poor["held_back_accuracy"].value == pytest.approx(0.5, abs=0.05)
    assert poor["selective_accuracy"].value > poor["selective_accuracy_without_limits"].value + 0.05


def fer_like(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The astronaut's face, framed as in FER-2013."""
    crop = Image.fromarray(astronaut).crop((168, 60, 280, 172)).convert("L")
    return np.asarray(crop.resize((48, 48), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def probe(astronaut: NDArray[np.uint8]) -> ServedModelProbe:
    """Four copies of one smiling face, one of them without a label. The model always answers happiness.

    The model's gates and hints are those of the shipped model.
    """
    repository = Settings().model_repository
    manifest = read_manifest(repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)

    shipped = torch.jit.load(str(verified_model_path(repository, manifest, TORCHSCRIPT)))  # type: ignore[no-untyped-call]

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
    return ServedModelProbe(happy, manifest, PhotoCropper(repository), faces)


def test_faces_are_detected_and_cropped(probe: ServedModelProbe) -> None:
    found, share = probe.detected_crops()
    assert found.right.tolist() == [True, True, False]
    assert found.clean.all()
    assert 0.6 < share < 1
    assert found.measured["face_likeness"].min() > 0.5
    assert np.abs(found.measured["yaw"]).max() < 0.3


def test_every_answer_for_a_picture_without_a_face_is_wrong(probe: ServedModelProbe) -> None:
    for kind in NOT_FACES.values():
        assert not probe.not_faces(kind).right.any()


@pytest.mark.parametrize(
    "corruption", CORRUPTIONS, ids=lambda corruption: f"{corruption.code}-{corruption.apply.__name__}"
)
def test_each_corruption_moves_its_measure_to_the_poor_end(
    probe: ServedModelProbe, corruption: Corruption
) -> None:
    weak, strong = (
        probe.corrupted(corruption, strength, 0.8)
        for strength in (corruption.strengths[0], corruption.strengths[-1])
    )
    values = [part.measured[corruption.measure].mean() for part in (probe.clean(0.8), weak, strong)]
    worse = sorted(values, reverse=corruption.code not in ("too_bright", "occluded"))
    assert values == worse
    assert len(set(values)) == 3
    assert weak.right.tolist() == [True, True, False]
