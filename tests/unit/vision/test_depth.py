"""PNG of every depth and colour type, written by hand. TIFF of every depth is in test_tiff.py."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from service.core.errors import UnsupportedMediaType
from service.vision.decode import decode

PHOTO = Image.fromarray(photographs.astronaut()).crop((150, 0, 310, 240)).resize((80, 120))
RGB = np.asarray(PHOTO)
GREY = np.asarray(PHOTO.convert("L"))[..., None]
ALPHA = np.full(GREY.shape, 255, np.uint8)
ALPHA[:, 40:] = 0

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
GREY_TYPE, RGB_TYPE, PALETTE_TYPE, GREY_ALPHA_TYPE, RGBA_TYPE = 0, 2, 3, 4, 6


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def lines(values: np.ndarray, bits: int) -> Iterable[bytes]:
    for row in values:
        places = np.arange(bits - 1, -1, -1)
        yield b"\0" + np.packbits(row.reshape(-1, 1).astype(int) >> places & 1).tobytes()


def png(
    values: np.ndarray, colour: int, bits: int, *, interlaced: bool = False, chunks: Iterable[bytes] = ()
) -> bytes:
    """values: [H,W,C] of so many bits each."""
    height, width = values.shape[:2]
    passes = (
        [values[top::down, left::across] for left, top, across, down in _ADAM7] if interlaced else [values]
    )
    body = zlib.compress(b"".join(line for part in passes for line in lines(part, bits)))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def of_bits(values: np.ndarray, bits: int) -> np.ndarray:
    scaled: np.ndarray = np.rint(values / 255 * (2**bits - 1)).astype(np.uint16)
    return scaled


def assert_shows(file: bytes, expected: np.ndarray, tolerance: int = 1) -> None:
    found = decode(file, pixel_limit=1_000_000).pixels
    expected = np.broadcast_to(expected, found.shape)
    assert np.abs(found.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("colour", "bits"),
    [
        *((GREY_TYPE, bits) for bits in (1, 2, 4, 8, 16)),
        *((colour, bits) for colour in (RGB_TYPE, GREY_ALPHA_TYPE, RGBA_TYPE) for bits in (8, 16)),
    ],
)
def test_every_depth_of_a_png_is_scaled(colour: int, bits: int, interlaced: bool) -> None:
    shown = GREY if colour in (GREY_TYPE, GREY_ALPHA_TYPE) else RGB
    values = of_bits(shown, bits)
    expected = np.rint(values / (2**bits - 1) * 255)
    if colour in (GREY_ALPHA_TYPE, RGBA_TYPE):
        values, expected = np.dstack([values, of_bits(ALPHA, bits)]), np.where(ALPHA, expected, 255)
    assert_shows(png(values, colour, bits, interlaced=interlaced), expected)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_of_every_depth_with_transparent_colours(bits: int, interlaced: bool) -> None:
    quantized = PHOTO.quantize(2**bits)
    palette = np.array(quantized.getpalette()[: 3 * 2**bits], np.uint8).reshape(-1, 3)  # type: ignore[index]
    indices = np.asarray(quantized)[..., None]
    chunks = [chunk(b"PLTE", palette.tobytes()), chunk(b"tRNS", bytes([0, 128]))]
    opacity = np.array([0, 128 / 255] + [1] * (2**bits - 2))[indices]
    expected = palette[indices[..., 0]] * opacity + 255 * (1 - opacity)
    assert_shows(png(indices, PALETTE_TYPE, bits, interlaced=interlaced, chunks=chunks), expected)


@pytest.mark.parametrize(
    ("colour", "bits"), [*((GREY_TYPE, bits) for bits in (1, 2, 4, 8, 16)), (RGB_TYPE, 8), (RGB_TYPE, 16)]
)
def test_the_transparent_colour_has_the_depth_of_the_file(colour: int, bits: int) -> None:
    values = of_bits(GREY if colour == GREY_TYPE else RGB, bits)
    clear = values[60, 40]
    if bits == 16:
        values[60, 40] = clear = clear - 7  # high and low byte differ
    body = clear.astype(">u2").tobytes()
    expected = np.where((values == clear).all(axis=2, keepdims=True), 255, values / (2**bits - 1) * 255)
    assert_shows(png(values, colour, bits, chunks=[chunk(b"tRNS", body)]), expected)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("colour", [GREY_TYPE, RGB_TYPE])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_values_of_fewer_bits_in_a_png_of_16_are_stretched(bits: int, colour: int, interlaced: bool) -> None:
    shown = GREY if colour == GREY_TYPE else RGB
    assert_shows(png(of_bits(shown, bits), colour, 16, interlaced=interlaced), shown)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("colour", [GREY_ALPHA_TYPE, RGBA_TYPE])
def test_values_of_fewer_bits_with_transparency_are_refused(colour: int, bits: int) -> None:
    shown = GREY if colour == GREY_ALPHA_TYPE else RGB
    for alpha_bits in (bits, 16):
        values = np.dstack([of_bits(shown, bits), of_bits(ALPHA, alpha_bits)])
        with pytest.raises(UnsupportedMediaType, match="with transparency"):
            decode(png(values, colour, 16), pixel_limit=1_000_000)


def test_a_dim_photo_of_16_bits_stays_dim() -> None:
    for colour, shown in ((GREY_TYPE, GREY), (RGB_TYPE, RGB)):
        assert_shows(png(of_bits(shown, 16) // 3, colour, 16), shown / 3)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_low_bytes_are_turned_as_the_high_bytes(
    orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.vision.upright.STRIP_PIXELS", 7 * 80)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = png(of_bits(RGB, 10), RGB_TYPE, 16, chunks=[chunk(b"eXIf", exif.tobytes()[6:])])
    assert_shows(file, np.rot90(RGB, {1: 0, 3: 2, 6: 3, 8: 1}[orientation]))
