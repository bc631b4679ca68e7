from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data as photographs

from service.vision.quality import FaceQuality, measure

PHOTO = Image.fromarray(photographs.astronaut())
# The astronaut's face.
BOX = np.array([[175, 60, 275, 190]], np.float32)
LANDMARKS = np.array([[(204, 112), (246, 111), (226, 135), (208, 155), (245, 154)]], np.float32)


def photo(image: Image.Image = PHOTO, box: np.ndarray = BOX) -> FaceQuality:
    return measure(np.asarray(image), box, LANDMARKS)[0]


def flat(value: int) -> FaceQuality:
    return measure(np.full((80, 80, 3), value, np.uint8), np.array([[10, 10, 60, 70]], np.float32), None)[0]


def posed(
    left_eye: tuple[float, float], right_eye: tuple[float, float], nose: tuple[float, float]
) -> FaceQuality:
    landmarks = np.array([[left_eye, right_eye, nose, (0, 0), (0, 0)]], np.float32)
    return measure(np.asarray(PHOTO), BOX, landmarks)[0]


def test_size_is_the_shorter_side() -> None:
    assert photo().size_px == 100


def test_sharpness_falls_with_blur() -> None:
    values = [photo(PHOTO.filter(ImageFilter.GaussianBlur(radius))).sharpness for radius in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 100
    assert values[-1] < 50


def test_sharpness_compares_between_sizes() -> None:
    # The same detail at 64 px, shown at another size, must not look sharper for having more pixels.
    smaller = PHOTO.resize((384, 384), Image.Resampling.LANCZOS)
    larger = PHOTO.resize((1536, 1536), Image.Resampling.LANCZOS)
    values = [photo(smaller, BOX * 0.75).sharpness, photo().sharpness, photo(larger, BOX * 3).sharpness]
    assert max(values) < 1.5 * min(values)
    # A face enlarged from a few pixels is not sharp, though it now has as many pixels as the others.
    tiny = PHOTO.resize((64, 64)).resize((512, 512), Image.Resampling.BICUBIC)
    assert photo(tiny).sharpness < 0.2 * min(values)


def test_light_of_flat_faces() -> None:
    assert flat(0) == FaceQuality(50, 0, 0, 0, None, None)
    assert flat(255).brightness == pytest.approx(1)
    assert flat(128).contrast == pytest.approx(0, abs=1e-6)


def test_contrast_of_a_half_lit_face() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    found = measure(image, np.array([[0, 0, 64, 64]], np.float32), None)[0]
    assert found.brightness == pytest.approx(0.5, abs=0.01)
    assert found.contrast == pytest.approx(0.5, abs=0.01)


def test_brightness_weighs_colours_as_the_eye_does() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 1] = 255
    assert measure(image, np.array([[0, 0, 64, 64]], np.float32), None)[0].brightness == pytest.approx(0.587)


@pytest.mark.parametrize("degrees", [-60, -10, 0, 25, 90])
def test_roll_is_clockwise(degrees: float) -> None:
    x, y = 20 * math.cos(math.radians(degrees)), 20 * math.sin(math.radians(degrees))
    found = posed((100 - x, 100 - y), (100 + x, 100 + y), (100, 100))
    assert found.roll_degrees == pytest.approx(degrees, abs=0.01)
    assert found.yaw == pytest.approx(0, abs=1e-4)


def test_yaw_follows_the_nose_whatever_the_roll() -> None:
    assert posed((80, 100), (120, 100), (110, 115)).yaw == pytest.approx(0.5)
    assert posed((80, 100), (120, 100), (90, 115)).yaw == pytest.approx(-0.5)
    assert posed((100, 80), (100, 120), (85, 110)).yaw == pytest.approx(0.5)
    assert posed((80, 100), (120, 100), (300, 115)).yaw == 1


def test_pose_is_unknown_without_landmarks() -> None:
    for found in (posed((9, 9), (9, 9), (9, 9)), posed((math.nan, 9), (99, 9), (50, 20)), flat(9)):
        assert found.roll_degrees is None
        assert found.yaw is None


@pytest.mark.parametrize("box", [(600, 600, 700, 700), (50, 50, 50, 90), (80, 80, 20, 20), (-90, 0, -10, 50)])
def test_a_box_without_pixels_measures_zero(box: tuple[float, ...]) -> None:
    found = photo(box=np.array([box], np.float32))
    assert (found.sharpness, found.brightness, found.contrast) == (0, 0, 0)
    assert found.size_px >= 0


def test_one_result_per_face_in_order_and_finite() -> None:
    boxes = np.concatenate([BOX, BOX - 500, BOX + 300, BOX * 0.001])
    found = measure(np.asarray(PHOTO), boxes, np.repeat(LANDMARKS, 4, axis=0))
    assert len(found) == 4
    assert found[0] == photo()
    assert all(math.isfinite(value) for face in found for value in dataclasses.astuple(face))
    assert measure(np.asarray(PHOTO), boxes[:0], LANDMARKS[:0]) == []
