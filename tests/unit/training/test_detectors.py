"""What every detector must do, including on tiny images and for invalid options."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from tests.unit.training.scenes import Detect, astronaut, montage, noise, overlap, scripted
from training.models.yunet import YuNet
from training.models.yunet_mtcnn import YuNetMtcnn


@pytest.fixture(scope="module", params=[YuNet.published, YuNetMtcnn.published], ids=["yunet", "yunet_mtcnn"])
def detect(request: pytest.FixtureRequest) -> Detect:
    published: Callable[[], nn.Module] = request.param
    try:
        return scripted(published())
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_finds_the_face_where_it_is(detect: Detect) -> None:
    found = detect(np.asarray(astronaut()), 32, 0.9)
    drawn_by_hand = np.array([[181, 61, 268, 172]], dtype=np.float32)
    assert found.boxes.shape == (1, 4)
    assert overlap(found.boxes, drawn_by_hand)[0, 0] > 0.8
    left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 300), (300, 1), (5, 5), (11, 300), (12, 12), (13, 12), (40, 13)]
)
@pytest.mark.parametrize("min_face_px", [12.0, 32.0])
def test_tiny_images_have_no_faces(shape: tuple[int, int], min_face_px: float, detect: Detect) -> None:
    found = detect(noise(*shape), min_face_px, 0.0)
    assert [values.shape[1:] for values in (found.boxes, found.scores, found.landmarks)] == [(4,), (), (5, 2)]
    assert {values.dtype for values in (found.boxes, found.scores, found.landmarks)} == {np.dtype("float32")}
    assert {len(found.boxes), len(found.scores), len(found.landmarks)} == {0}


def test_the_threshold_drops_faces_and_the_best_face_comes_first(detect: Detect) -> None:
    everything = detect(montage(), 20, 0.0)
    limit = float(np.median(everything.scores))
    certain = detect(montage(), 20, limit)
    assert (np.diff(everything.scores) <= 0).all()
    assert 0 < len(certain.scores) < len(everything.scores)
    np.testing.assert_array_equal(certain.scores, everything.scores[everything.scores >= limit])
    np.testing.assert_array_equal(certain.landmarks, everything.landmarks[: len(certain.scores)])


@pytest.mark.parametrize("value", [float("nan"), -5.0, 0.0, 3.0, -float("inf")])
def test_an_invalid_minimum_size_means_12_px(value: float, detect: Detect) -> None:
    image = np.asarray(astronaut(96))
    np.testing.assert_array_equal(detect(image, value, 0.9).boxes, detect(image, 12, 0.9).boxes)
    assert len(detect(image, 12, 0.9).scores) == 1


def test_a_minimum_size_above_the_image_finds_nothing(detect: Detect) -> None:
    image = np.asarray(astronaut(200))
    for min_face_px in (201, 1e30, float("inf")):
        assert len(detect(image, min_face_px, 0.0).scores) == 0
    assert len(detect(image, 40, float("nan")).scores) == 0
