"""Level tilted faces before they are cropped.

The detector's landmarks follow a tilt only in part, and its score is best for an upright face. So it searches
a tilted face again at several angles, and the best angle gives the landmarks.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from service.core.arrays import Detections, Photo
from service.vision.align import Similarity, cut
from service.vision.detect import SEARCHED_FACE_PX, SURE_SCORE, SearchPlan, best_score
from service.vision.quality import pose

ANGLES = (-45, -30, -15, 0, 15, 30, 45)  # the other quarters have rounds of their own
LEVEL_DEGREES = 8.0
# Bound the time for a photo of many small faces.
MAX_FACES = 8
MAX_UNSURE = 2
TILE_PX = 96
FACE_PX = 48  # in a tile


def unsure(found: Detections) -> list[int]:
    """The faces to search in other quarters: the largest of a photo without a sure face."""
    return [] if best_score(found) >= SURE_SCORE else list(range(len(found.scores)))[:MAX_UNSURE]


def tilted(found: Detections) -> list[int]:
    """The faces to search again near their quarter: the largest that may be tilted. found: largest first."""
    rolled = {face for face, points in enumerate(found.landmarks) if is_tilted(pose(points)[0])}
    return sorted(rolled.union(unsure(found)))[:MAX_FACES]


def is_tilted(roll_degrees: float | None) -> bool:
    """Whether the eyes are neither level nor plumb."""
    return abs(_from_quarter(roll_degrees or 0.0)) > LEVEL_DEGREES


def _from_quarter(degrees: float) -> float:
    """The angle to the next multiple of 90 degrees."""
    return (degrees + 45) % 90 - 45


@dataclass(frozen=True, slots=True)
class Tiles:
    """One image of N rows of tiles: each row has one face at all `ANGLES`.

    faces: the index of each row's face. placements: from the pixels of each tile to px of the photo.
    """

    plan: SearchPlan
    faces: list[int]
    placements: list[list[Similarity]]

    @classmethod
    def of(cls, photo: Photo, found: Detections, faces: list[int], quarters: int) -> Tiles:
        """quarters: from the quarter that is next to each face's roll."""
        rows, placements = [], []
        for face in faces:
            turns = [_placement(found, face, 90 * quarters + angle) for angle in ANGLES]
            rows.append(_row(photo, turns))
            placements.append(turns)
        return cls(SearchPlan(np.concatenate(rows), SEARCHED_FACE_PX, 1), faces, placements)

    def level(self, found: Detections, seen: Detections) -> Detections:
        """The faces with the landmarks and the score of their best tile. seen: in px of the tiles."""
        scores, landmarks = found.scores.copy(), found.landmarks.copy()
        for row, face in enumerate(self.faces):
            best = self._best(row, seen)
            if best is None or seen.scores[best] <= found.scores[face]:
                continue
            column = int(_middle(seen.boxes[best])[0] // TILE_PX)
            points = seen.landmarks[best] - np.array([column, row], np.float32) * TILE_PX
            scores[face] = seen.scores[best]
            landmarks[face] = _moved(points, self.placements[row][column])
        return Detections(found.boxes, scores, landmarks)

    def _best(self, row: int, seen: Detections) -> int | None:
        """The best face in the middle of a tile of this row; neighbours are at the edges."""
        middles = np.array([_middle(box) for box in seen.boxes]).reshape(-1, 2)
        from_centre = np.abs(middles % TILE_PX - TILE_PX / 2).max(axis=1, initial=0)
        inside = (middles[:, 1] // TILE_PX == row) & (from_centre < TILE_PX / 4)
        return int(np.where(inside, seen.scores, 0).argmax()) if inside.any() else None


def _placement(found: Detections, face: int, angle: float) -> Similarity:
    """A tile around a face, turned by `angle` degrees from the quarter next to the face's roll."""
    left, top, right, bottom = found.boxes[face].tolist()
    roll = pose(found.landmarks[face])[0] or 0.0
    degrees = roll - _from_quarter(roll) + angle
    scale_rotation = cmath.rect(max(right - left, bottom - top) / FACE_PX, math.radians(degrees))
    centre = complex(left + right, top + bottom) / 2
    return Similarity(scale_rotation, centre - scale_rotation * complex(TILE_PX, TILE_PX) / 2)


def _row(photo: Photo, turns: list[Similarity]) -> NDArray[np.uint8]:
    """The pixels of a face's tiles, side by side: uint8 [TILE_PX,N*TILE_PX,3]."""
    step = abs(turns[0].scale_rotation) / photo.scale
    centre = (turns[0].shift + turns[0].scale_rotation * complex(TILE_PX, TILE_PX) / 2) / photo.scale
    reach = step * TILE_PX  # more than half of a tile's diagonal
    left, top = (max(0, math.floor(at - reach)) for at in (centre.real, centre.imag))
    near = photo.pixels[top : math.ceil(centre.imag + reach), left : math.ceil(centre.real + reach)]
    # Reduced once for all angles: `cut` alone would read a large face for each angle.
    factor = min(max(1, math.floor(step)), *near.shape[:2])
    if factor > 1:
        near = np.asarray(Pictures.fromarray(near).reduce(factor))
    scale = photo.scale * factor
    tiles = [
        cut(
            near,
            Similarity(turn.scale_rotation / scale, turn.shift / scale - complex(left, top) / factor),
            TILE_PX,
        )
        for turn in turns
    ]
    return np.concatenate([tile.transpose(1, 2, 0) for tile in tiles], axis=1)


def _middle(box: NDArray[np.float32]) -> NDArray[np.float32]:
    middle: NDArray[np.float32] = (box[:2] + box[2:]) * np.float32(0.5)
    return middle


def _moved(points: NDArray[np.float32], placed: Similarity) -> NDArray[np.float32]:
    moved = [placed.scale_rotation * complex(x, y) + placed.shift for x, y in points.tolist()]
    return np.array([(point.real, point.imag) for point in moved], np.float32)
