"""A part of every frame of a video."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from service.core.arrays import Image
from service.core.seen import Seen

# Shares like 0.1 and 0.9 are not exact.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Region:
    """left, top, width, height: shares of the frame, from 0 to 1."""

    left: float
    top: float
    width: float
    height: float

    @classmethod
    def parse(cls, text: str) -> Region:
        """Raises `ValueError` if the text is not like `0.5,0,0.5,1`."""
        try:
            left, top, width, height = map(float, text.split(","))
        except ValueError:
            raise ValueError("a region is written like 0.5,0,0.5,1: x, y, width and height") from None
        across = left >= 0 and width > 0 and left + width <= 1 + ROUNDING
        down = top >= 0 and height > 0 and top + height <= 1 + ROUNDING
        if not (across and down):
            raise ValueError("a region must be inside the frame: x, y, width and height are shares of it")
        return cls(left, top, width, height)

    def __str__(self) -> str:
        return ",".join(f"{share:g}" for share in (self.left, self.top, self.width, self.height))

    def crop(self, pixels: Image) -> Image:
        """The region of a frame, uint8 [H,W,3], of at least one pixel."""
        left, top, right, bottom = self._edges(pixels.shape[1], pixels.shape[0])
        return np.ascontiguousarray(pixels[top:bottom, left:right])

    def in_frame(self, seen: Seen, width: int, height: int) -> Seen:
        """What was seen in the region, in px of the frame."""
        shift = np.array(self._edges(width, height)[:2], np.float32)
        return replace(
            seen,
            width=width,
            height=height,
            boxes=seen.boxes + np.tile(shift, 2),
            landmarks=None if seen.landmarks is None else seen.landmarks + shift,
        )

    def _edges(self, width: int, height: int) -> tuple[int, int, int, int]:
        left, top = math.floor(self.left * width), math.floor(self.top * height)
        right = max(left + 1, min(width, round((self.left + self.width) * width)))
        bottom = max(top + 1, min(height, round((self.top + self.height) * height)))
        return left, top, right, bottom
