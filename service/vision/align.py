"""Crop faces for the classifier. Serving and training share this code, so both see the same pixels.

Coordinates are continuous: pixel (0, 0) spans 0..1 in x and y, and its centre is (0.5, 0.5).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.core.manifest import Crop

# Landmarks beyond this are invalid: no photo is so large.
_COORDINATE_LIMIT_PX = 1e6


class Similarity(NamedTuple):
    """From the crop's pixels q to the image's p: p = scale_rotation * q + shift, with points as x + iy."""

    scale_rotation: complex
    shift: complex


def align_faces(
    image: NDArray[np.uint8], landmarks: NDArray[np.float32], crop: Crop, size: int
) -> NDArray[np.uint8]:
    """Crop and level faces. image: uint8 [H,W,3]; landmarks: float32 [N,5,2] px -> uint8 [N,3,size,size] RGB.

    Each face is turned, scaled and moved, never mirrored or sheared. A least-squares fit brings the eyes and
    the middle of the mouth to their places in `crop`. Outside the image its edge is repeated. Landmarks that
    define no crop (not finite, or all in one place) give the whole image instead; nothing is raised.
    """
    faces = np.empty((len(landmarks), 3, size, size), np.uint8)
    for face, points in zip(faces, landmarks, strict=True):
        placed = placement(points, crop, size)
        face[:] = whole_image(image, size)[0] if placed is None else cut(image, placed, size)
    return faces


def whole_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Take a whole image as one face crop. uint8 [H,W,3] -> uint8 [1,3,size,size]; size x size is unchanged.

    An image that is not square is cut to the largest square at its centre. The classifier was trained on
    faces that fill their crop, not on stretched or padded faces.
    """
    height, width = image.shape[:2]
    left, top, side = _central_square(width, height)
    square = Image.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
    return _channels_first(square.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0))[None]


def whole_placement(width: int, height: int, size: int) -> Similarity:
    """The placement of the square that `whole_image` takes."""
    left, top, side = _central_square(width, height)
    return Similarity(complex(side / size), complex(left, top))


def _central_square(width: int, height: int) -> tuple[int, int, int]:
    """(left, top, side) of the largest square at the centre."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def placement(points: NDArray[np.float32], crop: Crop, size: int) -> Similarity | None:
    """Least-squares similarity (Umeyama 1991) from the crop's pixels to the image's.

    None if the landmarks define no crop.
    """
    # As complex numbers, x + iy: for five points numpy's overhead is larger than its gain.
    found = [complex(x, y) for x, y in points.tolist()]
    # A positive comparison, so that NaN fails it, too.
    if not all(abs(point.real) < _COORDINATE_LIMIT_PX > abs(point.imag) for point in found):
        return None
    left_eye, right_eye, _, left_mouth, right_mouth = found
    source = left_eye, right_eye, (left_mouth + right_mouth) / 2
    target = [complex(*point) * size for point in (crop.left_eye, crop.right_eye, crop.mouth)]
    middle, aim = sum(source) / 3, sum(target) / 3
    centred = [point - middle for point in source]
    spread = sum(abs(point) ** 2 for point in centred)
    # The fit is made in crop px and then inverted, so it minimises the error that the classifier sees.
    fitted = sum(point.conjugate() * (to - aim) for point, to in zip(centred, target, strict=True))
    scale = fitted / spread if spread > 1e-6 else 0
    if abs(scale) * _COORDINATE_LIMIT_PX < size:
        return None
    scale_rotation = 1 / scale
    return Similarity(scale_rotation, middle - scale_rotation * aim)


def cut(image: NDArray[np.uint8], placed: Similarity, size: int) -> NDArray[np.uint8]:
    """Sample the pixels of a crop from the image: uint8 [H,W,3] -> uint8 [3,size,size].

    Large faces are first box-reduced to at least 2 px per crop px. Then they are sampled bilinearly, at most
    1.5 px apart so that no pixel is missed, and averaged. Small faces are enlarged bicubically. Only the
    pixels under the crop are read.
    """
    step, origin = placed
    reduction = max(1, math.floor(abs(step) / 2))
    apart = abs(step) / reduction
    samples = math.ceil(apart / 1.5)
    # A face that is slightly larger than the crop, too: bilinear sampling would blur it.
    bicubic = apart <= 1.05
    corners = [origin + step * corner for corner in (0, size, 1j * size, size + 1j * size)]
    source, left, top = _region(image, corners, reduction)
    a, b = step / (samples * reduction), (origin - complex(left, top)) / reduction
    warped = source.transform(
        (size * samples, size * samples),
        Image.Transform.AFFINE,
        (a.real, -a.imag, b.real, a.imag, a.real, b.imag),
        Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR,
    )
    return _channels_first(warped.reduce(samples) if samples > 1 else warped)


def _region(image: NDArray[np.uint8], corners: list[complex], reduction: int) -> tuple[Image.Image, int, int]:
    """The image under the corners, box-reduced, with repeated edges outside; and its left and top in px."""
    height, width = image.shape[:2]
    columns, left, pad_x = _span([corner.real for corner in corners], width, reduction)
    rows, top, pad_y = _span([corner.imag for corner in corners], height, reduction)
    region = Image.fromarray(np.ascontiguousarray(image[rows, columns]))
    if reduction > 1:
        region = region.reduce(reduction)
    if any(pad_x + pad_y):
        # After the reduction, so that padding never costs more than the crop, however far outside a face is.
        region = Image.fromarray(np.pad(np.asarray(region), (pad_y, pad_x, (0, 0)), mode="edge"))
    return region, left, top


def _span(corners: list[float], side: int, reduction: int) -> tuple[slice, int, tuple[int, int]]:
    """Along one axis: the pixels to read, the start of the padded region, blocks to pad before and after."""
    margin = 3 * reduction  # the reach of the bicubic kernel
    start, stop = math.floor(min(corners)) - margin, math.ceil(max(corners)) + margin
    read = slice(min(max(start, 0), side - 1), max(min(stop, side), 1))
    before = -(-max(read.start - start, 0) // reduction)
    after = -(-max(stop - read.stop, 0) // reduction)
    return read, read.start - before * reduction, (before, after)


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image).transpose(2, 0, 1)
