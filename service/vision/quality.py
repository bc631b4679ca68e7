"""How well a face can be read: size, sharpness, light and pose.

Sharpness and light are measured on the classifier's crops. Crops are available whatever size the photo was
decoded at, and training's images are crops, too.
"""

from __future__ import annotations

import cmath
import math

import numpy as np
from numpy.typing import NDArray

from service.core.arrays import FaceQuality, Faces

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
# The nose's place between the eyes (0) and the mouth (1): the detector's median on FER-2013's faces.
LEVEL_NOSE = 0.556


def measure(
    faces: Faces, boxes: NDArray[np.float32], landmarks: NDArray[np.float32] | None
) -> list[FaceQuality]:
    """Measure every face, in order.

    faces: uint8 [N,3,S,S] RGB, as the classifier gets them; boxes: float32 [N,4] xyxy px of the photo;
    landmarks: float32 [N,5,2] px, None if not detected.
    """
    # As floats: for the few numbers of a face numpy's overhead is larger than its gain.
    sizes = [max(0.0, min(right - left, bottom - top)) for left, top, right, bottom in boxes.tolist()]
    poses = [(None, None, None)] * len(faces) if landmarks is None else map(pose, landmarks)
    return [
        FaceQuality(size, *light, *turned)
        for size, light, turned in zip(sizes, measure_light(faces).tolist(), poses, strict=True)
    ]


def measure_light(faces: Faces) -> NDArray[np.float32]:
    """Sharpness, brightness and contrast as in `FaceQuality`: uint8 [N,3,S,S] RGB -> float32 [N,3]."""
    count, _, height, width = faces.shape
    luma = (_LUMA @ faces.reshape(count, 3, height * width).astype(np.float32)).reshape(count, height, width)
    edges = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1]
    edges += luma[:, 1:-1, :-2]
    edges += luma[:, 1:-1, 2:]
    edges -= 4 * luma[:, 1:-1, 1:-1]
    brightness, spread = _mean_and_variance(luma)
    # The variance of a flat face is only rounding: below one grey step it must not count as sharpness.
    sharpness = _mean_and_variance(edges)[1] / np.maximum(spread, 1)
    return np.stack([sharpness, brightness / 255, np.sqrt(spread) / 255], axis=1)


def _mean_and_variance(pictures: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and variance of each picture. numpy's `var` takes three times as long."""
    count, height, width = pictures.shape
    flat = pictures.reshape(count, height * width)
    mean = flat.mean(axis=1)
    centred = flat - mean[:, None]
    return mean, np.einsum("np,np->n", centred, centred) / flat.shape[1]


def pose(points: NDArray[np.float32]) -> tuple[float, float, float] | tuple[None, None, None]:
    """Roll in degrees, yaw and pitch as in `FaceQuality`. points: float32 [5,2] px."""
    found = [complex(x, y) for x, y in points.tolist()]
    if not all(map(cmath.isfinite, found)):
        return None, None, None
    left_eye, right_eye, nose, left_mouth, right_mouth = found
    eyes = (left_eye + right_eye) / 2
    across, down = right_eye - left_eye, (left_mouth + right_mouth) / 2 - eyes
    if abs(across) < 1e-6 or abs(down) < 1e-6:
        return None, None, None
    return (
        math.degrees(cmath.phase(across)),
        _clipped(2 * ((nose - eyes) / across).real),
        _clipped(2 * (((nose - eyes) / down).real - LEVEL_NOSE)),
    )


def _clipped(value: float) -> float:
    return min(1.0, max(-1.0, value))
