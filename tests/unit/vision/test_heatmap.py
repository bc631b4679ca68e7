"""What a heatmap shows, and where it lies."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.vision.align import Similarity, whole_placement
from service.vision.heatmap import COVERED_FACES, MAX_OPACITY, PLACES, SIDE_PX, cover, draw

SIDE = 48


def shown(png: str) -> NDArray[np.uint8]:
    """RGBA [112,112,4]."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    assert image.size == (SIDE_PX, SIDE_PX)
    return np.asarray(image.convert("RGBA"))


def left_by(row: int, column: int, fall: float = 0.6, of: float = 0.9) -> NDArray[np.float32]:
    """What is left of a probability when one patch counts and no other."""
    left = np.full((PLACES, PLACES), of, np.float32)
    left[row, column] = of - fall
    return left.ravel()


def test_each_patch_is_covered_once_by_the_mean_colour() -> None:
    face = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), np.uint8)
    faces = cover(face)
    assert faces.shape == (COVERED_FACES, 3, SIDE, SIDE)
    changed = (faces != face).any(axis=1)
    assert changed.any(axis=0).all()
    for pixels, change in zip(faces, changed, strict=True):
        rows, columns = np.nonzero(change)
        assert np.ptp(rows) == np.ptp(columns) == 15
        patch = pixels[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert np.abs(patch.mean(axis=(1, 2)) - face.mean(axis=(1, 2))).max() <= 0.5
        assert np.ptp(patch.reshape(3, -1), axis=1).max() == 0
    # Row by row, from the top left.
    assert changed[0, 0, 0]
    assert changed[PLACES - 1, 0, -1]
    assert changed[-1, -1, -1]


def test_the_map_is_strongest_where_the_patch_lay() -> None:
    drawing = draw(0.9, left_by(6, 1), whole_placement(96, 96, SIDE), SIDE)
    assert drawing.box.tolist() == [0, 0, 96, 96]
    assert drawing.largest_fall == pytest.approx(0.6, abs=1e-6)
    alpha = shown(drawing.png)[..., 3].astype(float)
    # The middle of a patch lies between pixels, so its own colour is never quite reached.
    assert 150 < alpha.max() <= 255 * MAX_OPACITY
    y, x = np.unravel_index(alpha.argmax(), alpha.shape)
    # The middle of the patch in the seventh row and the second column, of 48 px.
    assert y / SIDE_PX * SIDE == pytest.approx(27 + 8, abs=1.5)
    assert x / SIDE_PX * SIDE == pytest.approx(5 + 8, abs=1.5)
    assert alpha[0, -1] == 0


def test_the_map_of_a_tilted_face_lies_on_the_photo_as_the_face_does() -> None:
    # The crop's x runs down in the photo, its y to the left: a face turned clockwise by 90 degrees.
    step, origin = 2j, complex(150, 30)
    drawing = draw(0.9, left_by(7, 0), Similarity(step, origin), SIDE)
    assert drawing.box.tolist() == [150 - 96, 30, 150, 30 + 96]
    alpha = shown(drawing.png)[..., 3].astype(float)
    y, x = np.unravel_index(alpha.argmax(), alpha.shape)
    assert x < SIDE_PX / 3  # down in the crop is left in the photo
    assert y < SIDE_PX / 3


def test_beside_a_tilted_crop_nothing_is_painted() -> None:
    step = 2 * np.exp(0.5j)
    drawing = draw(0.9, left_by(3, 3) * 0.5, Similarity(complex(step), 0j), SIDE)
    alpha = shown(drawing.png)[..., 3]
    assert alpha[0, -1] == alpha[-1, 0] == alpha[0, 0] == 0
    assert alpha[SIDE_PX // 2, SIDE_PX // 2] > 0


def test_sure_answers_have_maps_too_and_indifferent_ones_none() -> None:
    whole = whole_placement(48, 48, SIDE)
    sure = draw(0.99999, left_by(3, 3, fall=0.001, of=0.99999), whole, SIDE)
    assert shown(sure.png)[..., 3].max() > 150
    indifferent = draw(0.7, left_by(3, 3, fall=0.01, of=0.7), whole, SIDE)
    assert shown(indifferent.png)[..., 3].max() < 50
    gained = draw(0.7, left_by(3, 3, fall=-0.2, of=0.7), whole, SIDE)
    assert gained.largest_fall == 0
    assert shown(gained.png)[..., 3].max() == 0


def test_a_map_is_small() -> None:
    noise = np.random.default_rng(0).random(COVERED_FACES, np.float32)
    assert len(draw(1.0, noise, whole_placement(48, 48, SIDE), SIDE).png) < 16_000
