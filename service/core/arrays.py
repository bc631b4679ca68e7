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
    """pixels: uint8 [H,W,3] RGB, each `scale` px of the image wide. width, height: px of the image.

    `scale` is a whole number. The last column and row may cover fewer px.
    """

    pixels: Image
    width: int
    height: int
    scale: int


@dataclass(frozen=True, slots=True)
class Detections:
    """boxes: float32 [N,4] xyxy in px; scores: float32 [N]; landmarks: float32 [N,5,2] px (x, y).

    Order of the landmarks: left eye, right eye, nose, left mouth corner, right mouth corner. Left is the
    image's left.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    @classmethod
    def none(cls) -> Detections:
        return cls(*(np.empty(shape, np.float32) for shape in ((0, 4), (0,), (0, 5, 2))))

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> Detections:
        return Detections(self.boxes[rows], self.scores[rows], self.landmarks[rows])

    def scaled(self, factor: float) -> Detections:
        """Boxes and landmarks times `factor`."""
        if factor == 1:
            return self
        times = np.float32(factor)
        return Detections(self.boxes * times, self.scores, self.landmarks * times)


@dataclass(frozen=True, slots=True)
class Classification:
    """probabilities: float32 [N,C], rows sum to 1; gates: float32 [N,2,4], the weight of each expert.

    occlusion: float32 [N,1], how much a face looks partly covered, 0 to 1.
    face_likeness: float32 [N,1], how much the crop looks like an upright face, 0 to 1.
    """

    probabilities: NDArray[np.float32]
    gates: NDArray[np.float32]
    occlusion: NDArray[np.float32]
    face_likeness: NDArray[np.float32]

    def __getitem__(self, rows: slice) -> Classification:
        return Classification(
            self.probabilities[rows], self.gates[rows], self.occlusion[rows], self.face_likeness[rows]
        )

    @classmethod
    def joined(cls, parts: Sequence[Classification]) -> Classification:
        return cls(
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.gates for part in parts]),
            np.concatenate([part.occlusion for part in parts]),
            np.concatenate([part.face_likeness for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """Quality of one face. Light and sharpness are measured on the classifier's crop.

    size_px: the shorter side of the box in px of the photo.
    sharpness: variance of the Laplacian of luma, divided by the variance of luma. Light and contrast cancel
        out.
    brightness, contrast: mean and standard deviation of luma 0..1.
    roll_degrees: slope of the line between the eyes; positive is clockwise as seen in the image.
    yaw: offset of the nose from the middle of the eyes, along the line between the eyes. The unit is half of
        the eye distance, clipped to -1..1. 0 looks ahead, positive turns to the image's right.
    pitch: the same along the line from the eyes to the mouth, relative to the usual place of the nose.
        Positive looks down.
    occlusion: the classifier's estimate of how much the face looks partly covered, 0 to 1.
    face_likeness: the classifier's estimate of how much the crop looks like an upright face, 0 to 1.

    roll_degrees, yaw and pitch are None if landmarks are missing, not finite, or coincide.
    occlusion and face_likeness are None until the face is classified.
    """

    size_px: float
    sharpness: float
    brightness: float
    contrast: float
    roll_degrees: float | None
    yaw: float | None
    pitch: float | None
    occlusion: float | None = None
    face_likeness: float | None = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """A heatmap. png: base64, with transparency. box: where to draw it, float32 [4] xyxy px of the image.

    largest_fall: the largest loss of the answer's probability when one patch is covered.
    """

    png: str
    box: NDArray[np.float32]
    largest_fall: float
