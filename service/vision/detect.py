"""The image that the detector searches, and the faces that are kept."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from service.core.arrays import Detections, Image, Photo

# The detector shrinks an image until its smallest face has 16 px.
SEARCHED_FACE_PX = 16
# The smallest face, as a share of the square root of the image's area. This share bounds the searched image
# to (16 / 0.017)^2 = 0.9 megapixels.
SMALLEST_FACE_SHARE = 0.017
# An image is shrunk here until its smallest face has exactly 16 px, so that the detector does not resample.
# If no whole factor does so, the smallest face keeps this size: resampling twice must not blur visibly.
SHRUNK_FACE_PX = 24
# How far the smallest face may exceed its share, so that a factor of the JPEG decoder makes it 16 px.
ROUNDED_UP = 1.15
# The detector misses or splits faces of more than about 300 px. So an image with a shorter side of at least
# `LARGE_FROM_PX` is searched once more with about `SMALL_PX`, and faces of `LARGE_PX` come from that search.
LARGE_FROM_PX = 384
SMALL_PX = 128
LARGE_PX = 320
SAME_FACE = 0.3  # intersection over union of two boxes of one face
# The detector may also find parts of a large face. A box is such a part if most of it is inside of a box that
# is larger, but not by far: a face on a shirt or a poster is smaller than a part.
PART_SHARE = 0.7
PART_AREA = 0.04
HOLDERS = 64  # only the largest boxes can have parts: bounds the time for a hostile image
# Upright faces have better scores than the same faces turned by 45 degrees or more.
SURE_SCORE = 0.975
# A photo without a sure face is also searched turned by quarters, with at least this many px on its shorter
# side, and less than twice as many.
TURNED_PX = 240
QUARTERS = (1, 3, 2)  # most turned photos are turned by 90 degrees


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """image: uint8 [H/scale,W/scale,3]. min_face_px: in its px, each `scale` px of the photo wide.

    quarters: how often the image was turned by 90 degrees, anticlockwise.
    """

    image: Image
    min_face_px: float
    scale: int
    quarters: int = 0

    def turned(self, quarters: int) -> SearchPlan:
        """The same search of the turned image."""
        image = np.ascontiguousarray(np.rot90(self.image, quarters))
        return replace(self, image=image, quarters=quarters)

    def smaller(self) -> SearchPlan:
        """The same search of a smaller image, for larger faces."""
        factor = max(1, min(self.image.shape[:2]) // TURNED_PX)
        if factor == 1:
            return self
        image = np.asarray(Pictures.fromarray(self.image).reduce(factor))
        return SearchPlan(image, max(self.min_face_px / factor, SEARCHED_FACE_PX), self.scale * factor)

    def for_large_faces(self) -> SearchPlan | None:
        """The search of a much smaller image, None if no face is too large for this one."""
        side = min(self.image.shape[:2])
        if side < LARGE_FROM_PX:
            return None
        factor = side // SMALL_PX
        image = np.asarray(Pictures.fromarray(self.image).reduce(factor))
        return replace(self, image=image, min_face_px=SEARCHED_FACE_PX, scale=self.scale * factor)

    def in_photo(self, found: Detections) -> Detections:
        """Faces in px of the image -> faces in px of the photo, turned back."""
        height, width = self.image.shape[:2]
        for _ in range(self.quarters):
            # A quarter clockwise: the left edge becomes the upper one.
            left, top, right, bottom = found.boxes.T
            boxes = np.stack([height - bottom, left, height - top, right], axis=1)
            x, y = found.landmarks[..., 0], found.landmarks[..., 1]
            found = Detections(boxes, found.scores, np.stack([height - y, x], axis=-1))
            height, width = width, height
        return found.scaled(self.scale)


def best_score(found: Detections) -> float:
    """0 without a face."""
    return float(found.scores.max(initial=0))


def smallest_face_px(width: int, height: int, min_face_px: float) -> float:
    """The smallest face to search for, in px of the image. It grows in large images, to bound the time."""
    share_px = SMALLEST_FACE_SHARE * math.sqrt(height * width)
    if share_px <= min_face_px:
        return min_face_px
    rounded_px = SEARCHED_FACE_PX * 2.0 ** math.ceil(math.log2(share_px / SEARCHED_FACE_PX))
    return rounded_px if rounded_px <= ROUNDED_UP * share_px else share_px


def too_narrow(width: int, height: int, min_face_px: float) -> bool:
    """Whether the image is narrower than half of the smallest face.

    Such a strip is not searched: the detector would pad it to many times its width.
    """
    return min(width, height) < smallest_face_px(width, height, min_face_px) / 2


def shrinkage(width: int, height: int, min_face_px: float) -> int:
    """The whole factor to shrink an image by before the search for faces of `min_face_px`."""
    smallest_px = smallest_face_px(width, height, min_face_px)
    exact, remainder = divmod(smallest_px, SEARCHED_FACE_PX)
    factor = int(exact) if remainder == 0 else math.floor(smallest_px / SHRUNK_FACE_PX)
    # Each side must keep one pixel. An image this narrow contains no face.
    return max(1, min(factor, height, width))


def search(photo: Photo, min_face_px: float) -> SearchPlan:
    """Plan the search of a photo for faces at least `min_face_px` of the image high.

    A box filter shrinks the photo by the part of the whole factor that decoding has not applied.
    """
    factor = max(1, shrinkage(photo.width, photo.height, min_face_px) // photo.scale)
    scale = factor * photo.scale
    shrunk = photo.pixels if factor == 1 else np.asarray(Pictures.fromarray(photo.pixels).reduce(factor))
    return SearchPlan(shrunk, smallest_face_px(photo.width, photo.height, min_face_px) / scale, scale)


def tolerable_shrinkage(found: Detections, min_px: int) -> int:
    """The largest whole factor that keeps every face's box `min_px` high or wide; 1 if no factor does.

    Without faces, `sys.maxsize`.
    """
    sides = _longer_sides(found.boxes)
    return max(1, int(sides.min() // min_px)) if len(sides) else sys.maxsize


def joined(found: Detections, large: Detections, large_px: float) -> Detections:
    """The faces of a search and of its search for large faces, all in px of the photo.

    large_px: from this size on, the first search is not used; the second is used from half of it on. Of two
    boxes of one face the better one is kept.
    """
    found = found[_longer_sides(found.boxes) < large_px]
    large = large[_longer_sides(large.boxes) >= large_px / 2]
    corners = np.minimum(found.boxes[:, None, 2:], large.boxes[None, :, 2:])
    corners -= np.maximum(found.boxes[:, None, :2], large.boxes[None, :, :2])
    shared = corners.clip(0).prod(axis=2)
    areas = [(part.boxes[:, 2:] - part.boxes[:, :2]).prod(axis=1) for part in (found, large)]
    same = shared > SAME_FACE * (areas[0][:, None] + areas[1][None] - shared)
    better = found.scores[:, None] >= large.scores[None]
    found, large = found[~(same & ~better).any(axis=1)], large[~(same & better).any(axis=0)]
    return Detections(
        np.concatenate([found.boxes, large.boxes]),
        np.concatenate([found.scores, large.scores]),
        np.concatenate([found.landmarks, large.landmarks]),
    )


def _longer_sides(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    sides: NDArray[np.float32] = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    return sides


def largest_first(found: Detections, width: int, height: int) -> Detections:
    """The faces sorted by size, boxes clipped to the image.

    Faces outside the image, and parts of another face, are dropped. Landmarks are not clipped: they may be
    outside the image.
    """
    boxes = found.boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))
    areas = (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] > 0]
    order = order[~_parts(boxes[order], found.scores[order], areas[order])]
    return Detections(boxes[order], found.scores[order], found.landmarks[order])


def _parts(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], areas: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Which boxes, largest first, are inside a larger one with a better score: bool [N]."""
    parts = np.zeros(len(boxes), dtype=bool)
    holders = boxes[: min(HOLDERS, len(boxes) - 1)]  # the smallest box holds none
    for index, (box, score, area) in enumerate(zip(holders, scores, areas, strict=False)):
        shared = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
        inside = shared.clip(0).prod(axis=1) > PART_SHARE * areas
        inside[: index + 1] = False
        parts |= inside & (scores < score) & (areas > area * PART_AREA)
    return parts
