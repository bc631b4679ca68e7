"""The values that flow through a request, stage to stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # H,W,3 RGB
Faces = NDArray[np.uint8]  # N,3,S,S RGB


def corner_and_size(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Boxes xyxy [...,4] -> left, top, width, height, float64 [...,4]."""
    exact = boxes.astype(np.float64)
    return np.concatenate([exact[..., :2], exact[..., 2:] - exact[..., :2]], axis=-1)


@dataclass(frozen=True, slots=True)
class Photo:
    """pixels: uint8 [H,W,3] RGB, each of them `scale` px of the image wide; width, height: px of the image.

    `scale` is a whole number; the last column and row may cover less.
    """

    pixels: Image
    width: int
    height: int
    scale: int


@dataclass(frozen=True, slots=True)
class Detections:
    """boxes: float32 [N,4] xyxy in px; scores: float32 [N]; landmarks: float32 [N,5,2] px (x, y).

    Landmarks are the eye and the mouth corner on the image's left and right: left eye, right eye, nose,
    left mouth corner, right mouth corner.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    @classmethod
    def none(cls) -> Detections:
        return cls(*(np.empty(shape, np.float32) for shape in ((0, 4), (0,), (0, 5, 2))))

    def __getitem__(self, rows: slice) -> Detections:
        return Detections(self.boxes[rows], self.scores[rows], self.landmarks[rows])

    def scaled(self, factor: float) -> Detections:
        """The same in other pixels: coordinates times `factor`."""
        if factor == 1:
            return self
        times = np.float32(factor)
        return Detections(self.boxes * times, self.scores, self.landmarks * times)


@dataclass(frozen=True, slots=True)
class Classification:
    """probabilities: float32 [N,C], rows sum to 1; gates: float32 [N,2,4], the weight of each expert.

    occlusion: float32 [N,1], how much a face looks as if something covers a part of it, 0 to 1.
    """

    probabilities: NDArray[np.float32]
    gates: NDArray[np.float32]
    occlusion: NDArray[np.float32]

    def __getitem__(self, rows: slice) -> Classification:
        return Classification(self.probabilities[rows], self.gates[rows], self.occlusion[rows])

    @classmethod
    def joined(cls, parts: Sequence[Classification]) -> Classification:
        return cls(
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.gates for part in parts]),
            np.concatenate([part.occlusion for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """Quality of one face; light and sharpness as the classifier sees it, levelled and in its size.

    size_px: the shorter side of the box in px of the photo.
    sharpness: variance of the Laplacian of luma over the variance of luma; light and contrast cancel out.
    brightness, contrast: mean and standard deviation of luma 0..1.
    roll_degrees: slope of the line between the eyes; positive is clockwise as seen in the image.
    yaw: an estimate from the nose alone: its offset from the middle of the eyes along the line between them,
        in halves of their distance, clipped to -1..1. 0 looks ahead, positive turns to the image's right.
    pitch: the same along the line from the eyes to the mouth, from where the nose of most faces lies.
        Positive looks down.

    occlusion: how much the face looks as if something covers a part of it, 0 to 1; the classifier's guess.

    roll_degrees, yaw and pitch are None where no landmarks tell: none were detected, or they coincide.
    occlusion is None until the face is classified.
    """

    size_px: float
    sharpness: float
    brightness: float
    contrast: float
    roll_degrees: float | None
    yaw: float | None
    pitch: float | None
    occlusion: float | None = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """A heatmap: `png` with transparency as base64, to be drawn over `box`, float32 [4] xyxy px of the image.

    largest_fall: the most that covering a patch took from the answer's probability.
    """

    png: str
    box: NDArray[np.float32]
    largest_fall: float
