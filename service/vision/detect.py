"""What the detector is shown of an image, and which of its faces are answered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pictures

from service.arrays import Detections, Image

# The pyramid's first level has area * (12 / min_face)^2 pixels and costs half of the search. A smallest face
# of 1.7 % of the area's square root keeps it at (12 / 0.017)^2 = 0.5 megapixels, however large the image is.
SMALLEST_FACE_SHARE = 0.017
# The smallest faces are shrunk to no less than this before the detector resamples them to its own 12 px:
# twice that, so that the two resamplings do not add up to a visible blur.
SHRUNK_FACE_PX = 24


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """image: uint8 [H/scale,W/scale,3]; min_face_px in its pixels, each `scale` px of the full image wide."""

    image: Image
    min_face_px: float
    scale: int

    def to_image(self, found: Detections) -> Detections:
        """The detector's answer in pixels of the full image."""
        if self.scale == 1:
            return found
        scale = np.float32(self.scale)
        return Detections(found.boxes * scale, found.scores, found.landmarks * scale)


def search(image: Image, min_face_px: float) -> SearchPlan:
    """Plan the search of an image uint8 [H,W,3] for faces at least `min_face_px` high.

    In large images the smallest face searched for grows, and the image is shrunk by a whole factor with a box
    filter, so that neither time nor memory grows with what a camera happens to deliver.
    """
    height, width = image.shape[:2]
    smallest = max(min_face_px, SMALLEST_FACE_SHARE * math.sqrt(height * width))
    # A side shorter than the factor would not keep one pixel; such an image holds no face either way.
    scale = max(1, min(math.floor(smallest / SHRUNK_FACE_PX), height, width))
    if scale == 1:
        return SearchPlan(image, smallest, 1)
    # np.array and not np.asarray: torch takes no read-only memory.
    return SearchPlan(np.array(Pictures.fromarray(image).reduce(scale)), smallest / scale, scale)


def select(found: Detections, width: int, height: int, max_faces: int) -> Detections:
    """At most `max_faces` faces, largest first, boxes clipped to the image; those outside of it are dropped.

    Landmarks stay where they were found, which may be beyond the image's edge.
    """
    boxes = found.boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))
    areas = (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] > 0][:max_faces]
    return Detections(boxes[order], found.scores[order], found.landmarks[order])
