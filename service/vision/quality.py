"""How well a face can be read: size, sharpness, light and pose, for callers to filter by."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.arrays import FaceQuality

# One scale for all faces, so that those of different sizes compare.
SIDE_PX = 64
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def measure(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    landmarks: NDArray[np.float32] | None,
    scale: int = 1,
) -> list[FaceQuality]:
    """Measure every face, in order. A box that holds no pixel of the image measures 0 throughout.

    image: uint8 [H,W,3]; boxes: float32 [N,4] xyxy in its px; landmarks: float32 [N,5,2] px, None if not
    detected; scale: px of the photo that one of the image is wide, for `size_px`.
    """
    points = [None] * len(boxes) if landmarks is None else landmarks
    return [_measure(image, box, face, scale) for box, face in zip(boxes, points, strict=True)]


def _measure(
    image: NDArray[np.uint8], box: NDArray[np.float32], points: NDArray[np.float32] | None, scale: int
) -> FaceQuality:
    left, top, right, bottom = (float(value) for value in box)
    luma = _luma(image, left, top, right, bottom)
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    roll_degrees, yaw = (None, None) if points is None else _pose(points.astype(np.float64))
    return FaceQuality(
        size_px=max(0.0, min(right - left, bottom - top)) * scale,
        sharpness=float(laplacian.var()),
        brightness=float(luma.mean()) / 255,
        contrast=float(luma.std()) / 255,
        roll_degrees=roll_degrees,
        yaw=yaw,
    )


def _luma(
    image: NDArray[np.uint8], left: float, top: float, right: float, bottom: float
) -> NDArray[np.float64]:
    """The part of the image under the box, as float64 [64,64] 0..255."""
    height, width = image.shape[:2]
    x0, x1 = max(math.floor(left), 0), min(math.ceil(right), width)
    y0, y1 = max(math.floor(top), 0), min(math.ceil(bottom), height)
    if x0 >= x1 or y0 >= y1:
        return np.zeros((SIDE_PX, SIDE_PX))
    region = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1]))
    pixels = np.asarray(region.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=2.0))
    luma: NDArray[np.float64] = pixels @ _LUMA
    return luma


def _pose(points: NDArray[np.float64]) -> tuple[float, float] | tuple[None, None]:
    left_eye, right_eye, nose = points[:3]
    across = right_eye - left_eye
    length = float(np.hypot(*across))
    if not np.isfinite(points[:3]).all() or length < 1e-6:
        return None, None
    offset = float(np.dot(nose - (left_eye + right_eye) / 2, across)) / length
    return math.degrees(math.atan2(across[1], across[0])), min(1.0, max(-1.0, 2 * offset / length))
