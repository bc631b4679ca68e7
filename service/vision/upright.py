"""Opened images to upright RGB pixels, strip by strip, so that no second full-size image ever exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms
from PIL.BmpImagePlugin import BmpImageFile

from service.vision.depth import grey_scaling, with_low_bytes

STRIP_PIXELS = 1 << 20


class Turn(NamedTuple):
    """How to turn a strip of the stored image upright.

    to_columns: whether rows become columns; backwards: whether the first strip comes last.
    """

    how: Image.Transpose | None
    to_columns: bool
    backwards: bool


UPRIGHT = Turn(None, False, False)
# By EXIF orientation.
TURNS = {
    2: Turn(Image.Transpose.FLIP_LEFT_RIGHT, False, False),
    3: Turn(Image.Transpose.ROTATE_180, False, True),
    4: Turn(Image.Transpose.FLIP_TOP_BOTTOM, False, True),
    5: Turn(Image.Transpose.TRANSPOSE, True, False),
    6: Turn(Image.Transpose.ROTATE_270, True, True),
    7: Turn(Image.Transpose.TRANSVERSE, True, True),
    8: Turn(Image.Transpose.ROTATE_90, True, False),
}


def turn_of(image: Image.Image) -> Turn:
    """By EXIF alone. Browsers ignore the orientation in XMP, which `getexif` reads too.

    A TIFF has no such EXIF: Pillow turns it while loading.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info["exif"])
        return TURNS.get(int(exif.get(ExifTags.Base.Orientation, 1)), UPRIGHT)
    except Exception:
        return UPRIGHT  # broken EXIF must not cost an otherwise fine image


def upright_rgb(image: Image.Image, turn: Turn) -> NDArray[np.uint8]:
    """Convert strip by strip into the final array, so that no second full-size image ever exists."""
    width, height = image.size
    upright = np.empty((width, height, 3) if turn.to_columns else (height, width, 3), np.uint8)
    convert = _converter(image)
    for place, strip in _upright_strips(image, turn):
        upright[place] = convert(strip)
    return upright


def _upright_strips(image: Image.Image, turn: Turn) -> Iterator[tuple[tuple[slice, ...], Image.Image]]:
    """The place of each strip in the upright image, and the strip, upright."""
    height = image.height
    for top, bottom, strip in strips(image):
        if turn.how is not None:
            strip = strip.transpose(turn.how)
        place = slice(height - bottom, height - top) if turn.backwards else slice(top, bottom)
        yield (slice(None), place) if turn.to_columns else (place,), strip


def add_low_bytes(pixels: NDArray[np.uint8], low: Image.Image, turn: Turn) -> None:
    """Make 8-bit pixels of the high bytes of 16-bit RGB, in place."""
    brightest = int(pixels.max())
    low.load()
    for place, strip in _upright_strips(low, turn):
        pixels[place] = with_low_bytes(pixels[place], np.asarray(strip), brightest)


def strips(image: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    """Full-width strips as (top, bottom, strip)."""
    width, height = image.size
    rows = max(1, STRIP_PIXELS // width)
    if rows >= height:
        yield 0, height, image
        return
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield top, bottom, image.crop((0, top, width, bottom))


def _converter(image: Image.Image) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """A function from a strip of this image to uint8 [h,W,3] or, if grey, [h,W,1]."""
    mode = image.mode
    if mode == "RGB" and not image.has_transparency_data:
        return lambda strip: np.asarray(strip)
    if mode == "L" and not image.has_transparency_data:
        return lambda strip: np.asarray(strip)[..., None]
    if mode.startswith("I;16") or mode in ("I", "F"):
        arrays = (np.asarray(strip) for _, _, strip in strips(image))
        scale = grey_scaling(mode, arrays, image.info.get("transparency"))
        return lambda strip: scale(np.asarray(strip))[..., None]
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        return lambda strip: np.asarray(transform.apply(strip))
    if mode == "La":
        return lambda strip: _over_white(strip.convert("LA"))
    if image.has_transparency_data and not (isinstance(image, BmpImageFile) and _is_clear(image)):
        return _over_white
    return lambda strip: np.asarray(strip.convert("RGB"))


def _is_clear(image: Image.Image) -> bool:
    """Whether all pixels are transparent. Of a BMP it means that its program wrote no transparency."""
    return image.mode == "RGBA" and not image.getchannel("A").getbbox()


def _over_white(strip: Image.Image) -> NDArray[np.uint8]:
    rgba = strip.convert("RGBA")
    paper = Image.new("RGB", strip.size, "white")
    paper.paste(rgba, mask=rgba)
    return np.asarray(paper)
