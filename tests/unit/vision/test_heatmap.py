"""What a heatmap shows, and its place on the photo."""

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


def pixels_of(png: str) -> NDArray[np.uint8]:
    """Decode a heatmap: RGBA [112,112,4]."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    assert image.size == (SIDE_PX, SIDE_PX)
    return np.asarray(image.convert("RGBA"))


def covered_probabilities(
    row: int, column: int, fall: float = 0.6, uncovered: float = 0.9
) -> NDArray[np.float32]:
    """The probability with each patch covered. It falls by `fall` for one patch, and for no other patch."""
    covered = np.full((PLACES, PLACES), uncovered, np.float32)
    covered[row, column] = uncovered - fall
    return covered.ravel()


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
    # Patches are ordered row by row, from the top left.
    assert changed[0, 0, 0]
    assert changed[PLACES - 1, 0, -1]
    assert changed[-1, -1, -1]


def test_the_map_is_strongest_at_the_patch() -> None:
    drawing = draw(0.9, covered_probabilities(6, 1), whole_placement(96, 96, SIDE), SIDE)
    assert drawing.box.tolist() == [0, 0, 96, 96]
    assert drawing.largest_fall == pytest.approx(0.6, abs=1e-6)
    alpha = pixels_of(drawing.png)[..., 3].astype(float)
    # The middle of a patch is between pixels, so no pixel has the full opacity.
    assert 150 < alpha.max() <= 255 * MAX_OPACITY
    y, x = np.unravel_index(alpha.argmax(), alpha.shape)
    # The middle of the patch in the seventh row and the second column of a crop of 48 px.
    assert y / SIDE_PX * SIDE == pytest.approx(27 + 8, abs=1.5)
    assert x / SIDE_PX * SIDE == pytest.approx(5 + 8, abs=1.5)
    assert alpha[0, -1] == 0


def test_the_map_of_a_tilted_face_is_tilted_like_the_face() -> None:
    # The face is turned clockwise by 90 degrees: the crop's x runs down in the photo, its y to the left.
    step, origin = 2j, complex(150, 30)
    drawing = draw(0.9, covered_probabilities(7, 0), Similarity(step, origin), SIDE)
    assert drawing.box.tolist() == [150 - 96, 30, 150, 30 + 96]
    alpha = pixels_of(drawing.png)[..., 3].astype(float)
    y, x = np.unravel_index(alpha.argmax(), alpha.shape)
    assert x < SIDE_PX / 3  # down in the crop is left in the photo
    assert y < SIDE_PX / 3


def test_nothing_is_painted_outside_of_a_tilted_crop() -> None:
    step = 2 * np.exp(0.5j)
    drawing = draw(0.9, covered_probabilities(3, 3) * 0.5, Similarity(complex(step), 0j), SIDE)
    alpha = pixels_of(drawing.png)[..., 3]
    assert alpha[0, -1] == alpha[-1, 0] == alpha[0, 0] == 0
    assert alpha[SIDE_PX // 2, SIDE_PX // 2] > 0


def test_maps_are_clear_for_confident_answers_and_faint_for_small_effects() -> None:
    placement = whole_placement(48, 48, SIDE)
    confident = draw(0.99999, covered_probabilities(3, 3, fall=0.001, uncovered=0.99999), placement, SIDE)
    assert pixels_of(confident.png)[..., 3].max() > 150
    faint = draw(0.7, covered_probabilities(3, 3, fall=0.01, uncovered=0.7), placement, SIDE)
    assert pixels_of(faint.png)[..., 3].max() < 50
    risen = draw(0.7, covered_probabilities(3, 3, fall=-0.2, uncovered=0.7), placement, SIDE)
    assert risen.largest_fall == 0
    assert pixels_of(risen.png)[..., 3].max() == 0


def test_the_file_of_a_map_is_small() -> None:
    noise = np.random.default_rng(0).random(COVERED_FACES, np.float32)
    assert len(draw(1.0, noise, whole_placement(48, 48, SIDE), SIDE).png) < 16_000
