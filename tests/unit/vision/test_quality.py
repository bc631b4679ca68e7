from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from skimage import data as photographs

from service.core.arrays import FaceQuality
from service.vision.quality import LEVEL_NOSE, measure

PHOTO = Image.fromarray(photographs.astronaut())
FACE = (168, 60, 280, 172)  # as the classifier's crop frames it
BOX = np.array([[175, 60, 275, 190]], np.float32)
LANDMARKS = np.array([[(204, 112), (246, 111), (226, 135), (208, 155), (245, 154)]], np.float32)


def crop(image: Image.Image = PHOTO, scale: float = 1) -> NDArray[np.uint8]:
    face = image.crop(tuple(round(scale * side) for side in FACE)).resize((48, 48), reducing_gap=3.0)  # type: ignore[arg-type]
    return np.asarray(face).transpose(2, 0, 1)[None]


def quality_of(image: Image.Image = PHOTO, scale: float = 1) -> FaceQuality:
    return measure(crop(image, scale), BOX, LANDMARKS)[0]


def crop_quality(pixels: NDArray[np.uint8]) -> FaceQuality:
    """pixels: uint8 [H,W,3]."""
    return measure(pixels.transpose(2, 0, 1)[None], BOX, None)[0]


def flat_quality(value: int) -> FaceQuality:
    return crop_quality(np.full((48, 48, 3), value, np.uint8))


def pose_of(*points: tuple[float, float]) -> FaceQuality:
    return measure(crop(), BOX, np.array([points], np.float32))[0]


MOUTH = ((90.0, 140.0), (110.0, 140.0))


def test_size_is_the_shorter_side() -> None:
    assert quality_of().size_px == 100


def test_sharpness_falls_with_blur() -> None:
    values = [quality_of(PHOTO.filter(ImageFilter.GaussianBlur(radius))).sharpness for radius in (0, 2, 4, 8)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[-1]


def test_sharpness_does_not_depend_on_light_and_contrast() -> None:
    face = crop().astype(np.float64)
    dim = (face * 0.4 + 60).round().astype(np.uint8)
    sharpness = measure(np.concatenate([crop(), dim]), np.repeat(BOX, 2, axis=0), None)
    assert sharpness[1].sharpness == pytest.approx(sharpness[0].sharpness, rel=0.05)


def test_sharpness_is_comparable_between_sizes() -> None:
    larger = PHOTO.resize((1536, 1536), Image.Resampling.LANCZOS)
    assert quality_of(larger, 3).sharpness == pytest.approx(quality_of().sharpness, rel=0.5)
    # A face that is enlarged from a few pixels is not sharp, despite its number of pixels.
    tiny = PHOTO.resize((64, 64)).resize((512, 512), Image.Resampling.BICUBIC)
    assert quality_of(tiny).sharpness < 0.2 * quality_of().sharpness


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_faces_have_brightness_but_neither_contrast_nor_sharpness(value: int) -> None:
    found = flat_quality(value)
    assert found.brightness == pytest.approx(value / 255, abs=1e-5)
    assert found.contrast == pytest.approx(0, abs=1e-5)
    assert found.sharpness == pytest.approx(0, abs=1e-5)


def test_contrast_of_a_half_lit_face() -> None:
    image = np.zeros((48, 48, 3), np.uint8)
    image[:, 24:] = 255
    found = crop_quality(image)
    assert found.brightness == pytest.approx(0.5, abs=1e-5)
    assert found.contrast == pytest.approx(0.5, abs=1e-5)


def test_brightness_weighs_colours_as_the_eye_does() -> None:
    image = np.zeros((48, 48, 3), np.uint8)
    image[..., 1] = 255
    assert crop_quality(image).brightness == pytest.approx(0.587)


@pytest.mark.parametrize("degrees", [-60, -10, 0, 25, 90])
def test_roll_is_clockwise(degrees: float) -> None:
    x, y = 20 * math.cos(math.radians(degrees)), 20 * math.sin(math.radians(degrees))
    found = pose_of((100 - x, 100 - y), (100 + x, 100 + y), (100, 100), (100 - y, 140), (100 - y, 140))
    assert found.roll_degrees == pytest.approx(degrees, abs=0.01)
    assert found.yaw == pytest.approx(0, abs=1e-4)


def test_yaw_follows_the_nose_at_every_roll() -> None:
    assert pose_of((80, 100), (120, 100), (110, 115), *MOUTH).yaw == pytest.approx(0.5)
    assert pose_of((80, 100), (120, 100), (90, 115), *MOUTH).yaw == pytest.approx(-0.5)
    assert pose_of((100, 80), (100, 120), (85, 110), (60, 90), (60, 110)).yaw == pytest.approx(0.5)
    assert pose_of((80, 100), (120, 100), (300, 115), *MOUTH).yaw == 1


def test_pitch_follows_the_nose_at_every_roll() -> None:
    level = 100 + 40 * LEVEL_NOSE
    assert pose_of((80, 100), (120, 100), (100, level), *MOUTH).pitch == pytest.approx(0, abs=1e-5)
    assert pose_of((80, 100), (120, 100), (100, level + 10), *MOUTH).pitch == pytest.approx(0.5, abs=1e-5)
    assert pose_of((80, 100), (120, 100), (100, level - 10), *MOUTH).pitch == pytest.approx(-0.5, abs=1e-5)
    on_its_side = [(-y, x) for x, y in ((80, 100), (120, 100), (100, level + 10), *MOUTH)]
    assert pose_of(*on_its_side).pitch == pytest.approx(0.5, abs=1e-5)


def test_pose_is_unknown_without_valid_landmarks() -> None:
    all_in_one_point = pose_of(*[(9.0, 9.0)] * 5)
    not_a_number = pose_of((math.nan, 9), (99, 9), (50, 20), *MOUTH)
    mouth_at_the_eyes = pose_of((80, 100), (120, 100), (100, 100), (90, 100), (110, 100))
    for found in (all_in_one_point, not_a_number, mouth_at_the_eyes, flat_quality(9)):
        assert (found.roll_degrees, found.yaw, found.pitch) == (None, None, None)


def test_one_result_per_face_in_order_and_finite() -> None:
    boxes = np.concatenate([BOX, BOX * 2, BOX * 0, -BOX])
    found = measure(np.repeat(crop(), 4, axis=0), boxes, np.repeat(LANDMARKS, 4, axis=0))
    assert [face.size_px for face in found] == [100, 200, 0, 0]
    assert found[0] == quality_of()
    values = [
        value
        for face in found
        for value in dataclasses.astuple(dataclasses.replace(face, occlusion=0, face_likeness=0))
    ]
    assert all(math.isfinite(value) for value in values)
    assert measure(crop()[:0], BOX[:0], LANDMARKS[:0]) == []


def test_a_face_has_the_same_quality_alone_and_in_a_batch() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (7, 3, 48, 48), np.uint8)
    batch = measure(np.concatenate([crop(), noise]), np.repeat(BOX, 8, axis=0), None)
    assert dataclasses.astuple(batch[0])[:4] == pytest.approx(dataclasses.astuple(quality_of())[:4], rel=1e-5)
