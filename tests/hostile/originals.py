"""Small valid images of every accepted format and of many of its variants. The tests damage them."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import Any

import numpy as np
import pillow_heif
import tifffile
from PIL import Image
from skimage import data as photographs


@functools.cache
def photo(side_px: int = 96) -> Image.Image:
    return Image.fromarray(photographs.astronaut()).crop((150, 0, 310, 240)).resize((side_px, side_px))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _heif(image: Image.Image, **options: Any) -> bytes:
    # `image.save` would need pillow-heif registered, which changes Pillow in the whole process.
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


def _tiff(**options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(photo()), photometric="rgb", **options)
    return file.getvalue()


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_interlaced(image: Image.Image) -> bytes:
    """A PNG with Adam7 interlacing, which Pillow cannot write."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    lines = b"".join(
        b"\0" + row.tobytes() for left, top, across, down in _ADAM7 for row in pixels[top::down, left::across]
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@functools.cache
def originals() -> dict[str, bytes]:
    """The images by their name, `format-variant`. Each decodes."""
    rgb = photo()
    grey, palette, cmyk = rgb.convert("L"), rgb.quantize(64), rgb.convert("CMYK")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear = rgb.copy()
    clear.putalpha(128)
    other = Image.new("RGB", rgb.size, "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [other, rgb]}
    return {
        "jpeg-baseline": encode(rgb, "JPEG", exif=exif, quality=90),
        "jpeg-progressive": encode(rgb, "JPEG", progressive=True, quality=90),
        "jpeg-cmyk": encode(cmyk, "JPEG"),
        "jpeg-grey": encode(grey, "JPEG", progressive=True),
        "jpeg-restart": encode(rgb, "JPEG", restart_marker_blocks=2),
        "mpo-two": encode(rgb, "MPO", **frames),
        "png-rgb": encode(rgb, "PNG", exif=exif),
        "png-interlaced": _png_interlaced(rgb),
        "png-16": encode(deep, "PNG"),
        "png-palette": encode(palette, "PNG", transparency=b"\x00\x7f\xff"),
        "png-alpha": encode(clear, "PNG"),
        "png-animated": encode(rgb, "PNG", **frames),
        "webp-lossy": encode(rgb, "WEBP", exif=exif),
        "webp-lossless": encode(clear, "WEBP", lossless=True),
        "webp-animated": encode(rgb, "WEBP", **frames),
        "bmp-rgb": encode(rgb.resize((32, 32)), "BMP"),
        "bmp-palette": encode(palette, "BMP"),
        "gif-still": encode(palette, "GIF"),
        "gif-animated": encode(rgb, "GIF", **frames),
        "tiff-strips": _tiff(rowsperstrip=16),
        "tiff-tiles": _tiff(tile=(16, 16)),
        "tiff-big": _tiff(bigtiff=True, rowsperstrip=32),
        "tiff-deflate": encode(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-lzw": encode(rgb, "TIFF", compression="tiff_lzw"),
        "tiff-packbits": encode(rgb, "TIFF", compression="packbits"),
        "tiff-jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tiff-group4": encode(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff-float": encode(grey.convert("F"), "TIFF"),
        "avif-still": encode(rgb, "AVIF", exif=exif),
        "avif-alpha": encode(clear, "AVIF"),
        "avif-animated": encode(rgb, "AVIF", **frames),
        "heic-still": _heif(rgb),
        "heic-alpha": _heif(clear),
    }
