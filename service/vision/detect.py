"""What the detector is shown of an image, and which of its faces are answered."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pictures

from service.core.arrays import Detections, Image, Photo

# The detector shrinks an image until its smallest face has 16 px.
SEARCHED_FACE_PX = 16
# A smallest face of 1.7 % of the area's square root keeps what is then searched at (16 / 0.017)^2 = 0.9
# megapixels, however large the image is.
SMALLEST_FACE_SHARE = 0.017
# An image is shrunk here so that its smallest face has 16 px, which leaves the detector nothing to resample,
# or no less than this: two resamplings must not add up to a visible blur.
SHRUNK_FACE_PX = 24
# How much more than its share a smallest face may grow to become 16 px by a factor that a JPEG decodes at.
ROUNDED_UP = 1.15


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """image: uint8 [H/scale,W/scale,3]; min_face_px in its pixels, each `scale` px of the image wide."""

    image: Image
    min_face_px: float
    scale: int


def smallest_face_px(width: int, height: int, min_face_px: float) -> float:
    """In large images it grows, so that the time does not grow with what a camera happens to deliver."""
    share_px = SMALLEST_FACE_SHARE * math.sqrt(height * width)
    if share_px <= min_face_px:
        return min_face_px
    rounded_px = SEARCHED_FACE_PX * 2.0 ** math.ceil(math.log2(share_px / SEARCHED_FACE_PX))
    return rounded_px if rounded_px <= ROUNDED_UP * share_px else share_px


def too_narrow(width: int, height: int, min_face_px: float) -> bool:
    """Whether not even half of the smallest face that is searched for fits in.

    Such a strip is not searched: the detector pads it to a width that is many times its own.
    """
    return min(width, height) < smallest_face_px(width, height, min_face_px) / 2


def shrinkage(width: int, height: int, min_face_px: float) -> int:
    """By which whole factor an image may be shrunk before it is searched for faces of `min_face_px`."""
    smallest_px = smallest_face_px(width, height, min_face_px)
    exact, remainder = divmod(smallest_px, SEARCHED_FACE_PX)
    factor = int(exact) if remainder == 0 else math.floor(smallest_px / SHRUNK_FACE_PX)
    # A side shorter than the factor would not keep one pixel; such an image holds no face either way.
    return max(1, min(factor, height, width))


def search(photo: Photo, min_face_px: float) -> SearchPlan:
    """Plan the search of a photo for faces at least `min_face_px` of the image high.

    It is shrunk by a whole factor with a box filter, as far as decoding has not done so already.
    """
    factor = max(1, shrinkage(photo.width, photo.height, min_face_px) // photo.scale)
    scale = factor * photo.scale
    shrunk = photo.pixels if factor == 1 else np.asarray(Pictures.fromarray(photo.pixels).reduce(factor))
    return SearchPlan(shrunk, smallest_face_px(photo.width, photo.height, min_face_px) / scale, scale)


def tolerable_shrinkage(found: Detections, min_px: int) -> int:
    """The largest whole factor that leaves every face's box `min_px` high or wide, 1 if none does.

    Without faces it is as large as you like.
    """
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0)
    return max(1, int(sides.min() // min_px)) if len(sides) else sys.maxsize


def largest_first(found: Detections, width: int, height: int) -> Detections:
    """The faces sorted by size, boxes clipped to the image; faces outside of it are dropped.

    Landmarks stay where they were found, which may be beyond the image's edge.
    """
    boxes = found.boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))
    areas = (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] > 0]
    return Detections(boxes[order], found.scores[order], found.landmarks[order])
