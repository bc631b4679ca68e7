"""Tilted faces are searched again at several angles, and the best angle gives their landmarks."""

from __future__ import annotations

import numpy as np
import pytest

from service.core.arrays import Detections, Photo
from service.vision.detect import SURE_SCORE
from service.vision.level import ANGLES, MAX_FACES, MAX_UNSURE, TILE_PX, Tiles, tilted, unsure

CENTRE = 100.0
BOX = np.array([60, 60, 140, 140], np.float32)


def rotated(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points (x, y) turned clockwise, as seen in the image, around the centre of the box."""
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned: np.ndarray = ((points - CENTRE) @ matrix.T + CENTRE).astype(np.float32)
    return turned


LEVEL = np.array([[80, 85], [120, 85], [100, 100], [85, 120], [115, 120]], np.float32)


def faces(*rolls: float, score: float = 0.99) -> Detections:
    count = len(rolls)
    landmarks = np.stack([rotated(LEVEL, roll) for roll in rolls])
    return Detections(np.tile(BOX, (count, 1)), np.full(count, score, np.float32), landmarks)


def test_level_and_sure_faces_are_not_searched_again() -> None:
    assert tilted(faces(0, 5, -5, 90, 185, -95)) == []
    assert tilted(Detections.none()) == unsure(Detections.none()) == []


def test_tilted_and_unsure_faces_are_searched_again() -> None:
    assert tilted(faces(0, 20, -100, 45)) == [1, 2, 3]
    assert tilted(faces(0, 0, 0, 20, score=0.95)) == [0, 1, 3], "of level faces only the largest"
    assert tilted(faces(*[30] * 20)) == list(range(MAX_FACES))


def test_other_quarters_are_only_searched_without_a_sure_face() -> None:
    assert unsure(faces(*[0] * 9, score=0.95)) == list(range(MAX_UNSURE))
    one_sure = faces(0, 0, 0, score=0.95)
    one_sure.scores[2] = SURE_SCORE
    assert unsure(one_sure) == []


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("quarters", [0, 1, 2])
@pytest.mark.parametrize("column", range(len(ANGLES)))
def test_landmarks_of_a_tile_are_where_the_photo_has_them(column: int, quarters: int, scale: int) -> None:
    pixels = np.zeros((200 // scale, 200 // scale, 3), np.uint8)
    at = (112 // scale, 88 // scale)  # x, y
    pixels[at[1], at[0]] = 255
    found = faces(10)
    tiles = Tiles.of(Photo(pixels, 200, 200, scale), found, [0], quarters)
    assert tiles.plan.image.shape == (TILE_PX, len(ANGLES) * TILE_PX, 3)
    tile = tiles.plan.image[:, column * TILE_PX : (column + 1) * TILE_PX, 0].astype(float)
    rows, columns = np.mgrid[:TILE_PX, :TILE_PX] + 0.5
    dot = np.array([(tile * columns).sum(), (tile * rows).sum()]) / tile.sum() + (column * TILE_PX, 0)
    middle = np.array([column * TILE_PX + TILE_PX / 2, TILE_PX / 2])
    seen = Detections(
        np.concatenate([middle - 24, middle + 24]).astype(np.float32)[None],
        np.array([0.995], np.float32),
        np.repeat(dot[None, None].astype(np.float32), 5, axis=1),
    )
    levelled = tiles.level(found, seen)
    expected = (np.array(at) + 0.5) * scale
    assert np.abs(levelled.landmarks[0] - expected).max() < 0.6 * scale
    assert levelled.scores[0] == np.float32(0.995)
    assert levelled.boxes is found.boxes


def test_the_best_tile_of_each_face_counts_unless_the_face_was_better() -> None:
    found = faces(20, 20, 20)
    tiles = Tiles.of(Photo(np.zeros((200, 200, 3), np.uint8), 200, 200, 1), found, [0, 2], 0)
    assert tiles.plan.image.shape[0] == 2 * TILE_PX
    # Row and column of the tile, distance from its middle in px, and score.
    places = [(0, 1, 0, 0.991), (0, 4, 0, 0.995), (0, 5, 40, 0.999), (1, 3, 0, 0.98)]
    middles = np.array([[column + 0.5, row + 0.5] for row, column, _, _ in places]) * TILE_PX
    middles += np.array([[away, 0] for _, _, away, _ in places])
    seen = Detections(
        np.concatenate([middles - 20, middles + 20], axis=1).astype(np.float32),
        np.array([score for *_, score in places], np.float32),
        np.repeat(middles[:, None], 5, axis=1).astype(np.float32),
    )
    levelled = tiles.level(found, seen)
    np.testing.assert_array_equal(levelled.scores, np.array([0.995, 0.99, 0.99], np.float32))
    np.testing.assert_allclose(levelled.landmarks[0], np.full((5, 2), CENTRE), atol=0.01)
    np.testing.assert_array_equal(levelled.landmarks[1:], found.landmarks[1:])


def test_no_face_in_the_tiles_changes_nothing() -> None:
    found = faces(20)
    tiles = Tiles.of(Photo(np.zeros((200, 200, 3), np.uint8), 200, 200, 1), found, [0], 0)
    levelled = tiles.level(found, Detections.none())
    np.testing.assert_array_equal(levelled.landmarks, found.landmarks)
