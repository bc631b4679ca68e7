"""More than 8 bits per channel, scaled to 8.

A file states how many bits store a value, but not how many of them are in use: cameras write 10 or 12 bits to
files of 16. White is the smallest usual maximum that no value exceeds.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

Scaling = Callable[[NDArray[Any]], NDArray[np.uint8]]  # of the same shape

# 8, 10, 12, 14 and 16 bits. Of 15 bits, only signed values have a range of their own.
_UNSIGNED = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
_SIGNED = (255.0, 1023.0, 4095.0, 16383.0, 32767.0, 65535.0)
_FLOAT = (1.0, 255.0, 65535.0)
_DARK = 64  # 14 bits or fewer, if no high byte is larger

# Pillow keeps the high bytes of 16-bit RGB. With the other byte order it keeps the low bytes.
# N is the byte order of the machine, in which libtiff returns values.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L"}
_DEEP_RGB = {*_LOW_BYTES, "RGBA;16B", "RGBA;16N", "RGBa;16N", "LA;16B"}
_GREY_STEPS = {"L;2": 85, "L;4": 17}


def grey_scaling(mode: str, arrays: Iterable[NDArray[Any]], transparent: int | None) -> Scaling:
    """Returns what scales grey of a mode of Pillow to 8 bits.

    arrays: all pixels, in parts; transparent: a value that becomes white, for modes of 16 bits
    """
    brightest = max(float(np.max(array, initial=0, where=np.isfinite(array))) for array in arrays)
    white = _white(brightest, {"I": _SIGNED, "F": _FLOAT}.get(mode, _UNSIGNED))
    if mode in ("I", "F"):
        return lambda array: _scaled(array, white)
    table = _table(white)
    if transparent is not None:
        table[transparent] = 255
    return lambda array: table.take(array)


def is_deep_rgb(image: ImageFile.ImageFile) -> bool:
    """Whether an opened image stores 16 bits of which Pillow will keep the high bytes."""
    return _codec_arguments(image)[0] in _DEEP_RGB


def is_dark(image: Image.Image) -> bool:
    """Whether the colours of a loaded image, the high bytes of 16 bits, need their low bytes."""
    return all(highest < _DARK for _, highest in image.getextrema()[:3])  # type: ignore[misc]


def open_low_bytes(image: ImageFile.ImageFile) -> ImageFile.ImageFile | None:
    """The same image, so that it loads the low byte of each value; none if that is not possible.

    It is possible for 16-bit RGB without transparency whose channels are not in separate planes.
    """
    rawmode, *others = _codec_arguments(image)
    if rawmode not in _LOW_BYTES or image.has_transparency_data or getattr(image, "planar", False):
        return None
    assert isinstance(image.fp, io.BytesIO)
    low = type(image)(io.BytesIO(image.fp.getvalue()), "")
    low.info = image.info.copy()
    low.tile = [image.tile[0]._replace(args=(_LOW_BYTES[rawmode], *others))]
    return low


def with_low_bytes(high: NDArray[np.uint8], low: NDArray[np.uint8], brightest: int) -> NDArray[np.uint8]:
    """16-bit values scaled to 8 bits. brightest: the largest high byte of the image"""
    table = _table(_white(brightest * 256 + 255, _UNSIGNED))
    return table.take(high.astype(np.uint16) << 8 | low)


def scale_transparency(image: ImageFile.ImageFile) -> None:
    """Scale the transparent colour of an opened PNG to 8 bits, as Pillow scales the pixels."""
    rawmode, clear = _codec_arguments(image)[0], image.info.get("transparency")
    if rawmode in _GREY_STEPS and isinstance(clear, int):
        image.info["transparency"] = clear * _GREY_STEPS[rawmode]
    elif rawmode == "RGB;16B" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _codec_arguments(image: ImageFile.ImageFile) -> tuple[Any, ...]:
    """The first tells how pixels are stored."""
    args = image.tile[0].args if image.tile else None
    return args if isinstance(args, tuple) else (args,)


def _white(brightest: float, usual: tuple[float, ...]) -> float:
    return next((value for value in usual if brightest <= value), brightest)


def _table(white: float) -> NDArray[np.uint8]:
    """Of every 16-bit value, what it is in 8 bits."""
    return _scaled(np.arange(65536), white)


def _scaled(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    scaled = np.nan_to_num(values.astype(np.float64) * (255 / white), posinf=255, neginf=0)
    rounded: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return rounded
