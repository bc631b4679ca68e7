"""What the detector is shown of an image, and which of its faces are answered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pictures

from service.arrays import Detections, Image, Photo

# The detector shrinks an image until its smallest face has 16 px. A smallest face of 1.7 % of the area's
# square root keeps what it then searches at (16 / 0.017)^2 = 0.9 megapixels, however large the image is.
SMALLEST_FACE_SHARE = 0.017
# The smallest faces are shrunk to no less than this before the detector resamples them to its own 16 px, so
# that the two resamplings do not add up to a visible blur.
SHRUNK_FACE_PX = 24


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """image: uint8 [H/scale,W/scale,3]; min_face_px in its pixels, each `scale` px of the image wide."""

    image: Image
    min_face_px: float
    scale: int


def smallest_face_px(width: int, height: int, min_face_px: float) -> float:
    """In large images it grows, so that the time does not grow with what a camera happens to deliver."""
    return max(min_face_px, SMALLEST_FACE_SHARE * math.sqrt(height * width))


def shrinkage(width: int, height: int, min_face_px: float) -> int:
    """By which whole factor an image may be shrunk before it is searched for faces of `min_face_px`."""
    factor = math.floor(smallest_face_px(width, height, min_face_px) / SHRUNK_FACE_PX)
    # A side shorter than the factor would not keep one pixel; such an image holds no face either way.
    return max(1, min(factor, height, width))


def search(photo: Photo, min_face_px: float) -> SearchPlan:
    """Plan the search of a photo for faces at least `min_face_px` of the image high.

    It is shrunk by a whole factor with a box filter, as far as decoding has not done so already.
    """
    factor = max(1, shrinkage(photo.width, photo.height, min_face_px) // photo.scale)
    scale = factor * photo.scale
    # np.array and not np.asarray: torch takes no read-only memory.
    shrunk = photo.pixels if factor == 1 else np.array(Pictures.fromarray(photo.pixels).reduce(factor))
    return SearchPlan(shrunk, smallest_face_px(photo.width, photo.height, min_face_px) / scale, scale)


def sharp_enough(found: Detections, scale: int, least_px: int) -> bool:
    """Whether every face's box is `least_px` high or wide in pixels that are `scale` px of the image."""
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0)
    return scale == 1 or bool((sides >= least_px * scale).all())


def select(found: Detections, width: int, height: int, max_faces: int) -> Detections:
    """At most `max_faces` faces, largest first, boxes clipped to the image; those outside of it are dropped.

    Landmarks stay where they were found, which may be beyond the image's edge.
    """
    boxes = found.boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))
    areas = (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] > 0][:max_faces]
    return Detections(boxes[order], found.scores[order], found.landmarks[order])
