"""Every kind of TIFF is decoded to the pixels that were written, or refused by what it holds."""

from __future__ import annotations

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from skimage import data as photographs

from service.core.errors import InvalidImage, UnsupportedMediaType
from service.vision.decode import decode

PHOTO = Image.fromarray(photographs.astronaut()).crop((150, 0, 310, 240)).resize((80, 120))
RGB = np.asarray(PHOTO)
GREY = np.asarray(PHOTO.convert("L"))
ALPHA = np.full(GREY.shape, 255, np.uint8)
ALPHA[:, 40:] = 0
BLACK = np.zeros_like(GREY)
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)


def on_white(rgb: np.ndarray) -> np.ndarray:
    return np.where(ALPHA[..., None] == 255, rgb, 255)


# Channels by name, with the pixels that they show: photometric, extra samples, channels, RGB.
CHANNELS: dict[str, tuple[str, tuple[str, ...], np.ndarray, np.ndarray]] = {
    "grey": ("minisblack", (), GREY, GREY_RGB),
    "inverted": ("miniswhite", (), 255 - GREY, GREY_RGB),
    "grey, alpha": ("minisblack", ("unassalpha",), np.dstack([GREY, ALPHA]), on_white(GREY_RGB)),
    "rgb": ("rgb", (), RGB, RGB),
    "rgb, alpha": ("rgb", ("unassalpha",), np.dstack([RGB, ALPHA]), on_white(RGB)),
    "premultiplied": ("rgb", ("assocalpha",), np.dstack([RGB & ALPHA[..., None], ALPHA]), on_white(RGB)),
    "rgb, other": ("rgb", ("unspecified",), np.dstack([RGB, GREY]), RGB),
    "cmyk": ("separated", (), np.dstack([255 - RGB, BLACK]), RGB),
    "ycbcr": ("ycbcr", (), np.asarray(PHOTO.convert("YCbCr")), RGB),
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "whole": {},
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (32, 48)},
    "deflate": {"compression": "zlib", "predictor": True},
    "deflated tiles": {"compression": "zlib", "tile": (32, 48)},
}


def written(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def written_channels(name: str, dtype: str, *, planar: bool = False, **options: Any) -> bytes:
    photometric, extra, channels, _ = CHANNELS[name]
    kind = np.dtype(dtype)
    if kind.name not in ("uint8", "uint16"):
        options.pop("predictor", None)  # tifffile cannot write all others
    white = 1 if kind.kind == "f" else np.iinfo(kind).max
    values = (channels / 255 * white).astype(kind)
    if values.ndim == 3:
        options["planarconfig"] = "separate" if planar else "contig"
        options["extrasamples"] = extra
    values = np.moveaxis(values, 2, 0) if planar else values
    return written(values, photometric=photometric, byteorder=dtype[0], **options)


def read(file: bytes) -> np.ndarray:
    return decode(file, pixel_limit=1_000_000).pixels


def assert_shows(found: np.ndarray, expected: np.ndarray, tolerance: int = 1) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= tolerance


RIGHT = [
    *itertools.product(["grey", "inverted", "grey, alpha"], ["u1"], [False]),
    *itertools.product(["grey"], ["u2", "i2", "f4"], [False]),
    *itertools.product(
        ["rgb", "rgb, alpha", "premultiplied", "rgb, other", "cmyk"], ["u1", "u2"], [False, True]
    ),
    *itertools.product(["ycbcr"], ["u1"], [False, True]),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("name", "dtype", "planar"), RIGHT)
def test_pixels_are_those_that_were_written(
    name: str, dtype: str, planar: bool, order: str, layout: str
) -> None:
    file = written_channels(name, order + dtype, planar=planar, **LAYOUTS[layout])
    assert_shows(read(file), CHANNELS[name][3], tolerance=3 if name == "ycbcr" else 1)


REFUSED = [
    ("grey", "u4", False, "1 x 32-bit grey"),
    ("grey", "u8", False, "1 x 64-bit grey"),
    ("grey", "i1", False, "1 x 8-bit signed grey"),
    ("grey", "f2", False, "1 x 16-bit floating-point grey"),
    ("grey", "f8", False, "1 x 64-bit floating-point grey"),
    ("inverted", "u2", False, "1 x 16-bit inverted grey"),
    ("inverted", "f4", False, "1 x 32-bit floating-point inverted grey"),
    ("grey, alpha", "u1", True, "2 x 8-bit grey in separate planes"),
    ("grey, alpha", "u2", False, "2 x 16-bit grey"),
    ("rgb", "u4", False, "3 x 32-bit RGB"),
    ("rgb", "i2", False, "3 x 16-bit signed RGB"),
    ("rgb", "f4", False, "3 x 32-bit floating-point RGB"),
    ("rgb", "f4", True, "3 x 32-bit floating-point RGB in separate planes"),
    ("rgb, alpha", "f8", False, "4 x 64-bit floating-point RGB"),
    ("cmyk", "u4", False, "4 x 32-bit CMYK"),
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("name", "dtype", "planar", "named"), REFUSED)
def test_what_would_be_misread_is_refused_by_name(
    name: str, dtype: str, planar: bool, named: str, order: str
) -> None:
    for layout in LAYOUTS.values():
        with pytest.raises(UnsupportedMediaType) as caught:
            read(written_channels(name, order + dtype, planar=planar, **layout))
        assert caught.value.detail == (
            f"TIFF images of {named} are not supported; save the image as 8-bit RGB"
        )


@pytest.mark.parametrize("photometric", ["itulab", "icclab", "mask"])
def test_other_colours_are_refused_by_name(photometric: str) -> None:
    values = GREY if photometric == "mask" else RGB
    names = {"mask": "mask"}
    with pytest.raises(UnsupportedMediaType, match=names.get(photometric, photometric.upper())):
        read(written(values, photometric=photometric))


def with_tag(file: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF of which a tag with one number has another value."""
    (at,) = (place for kind in (3, 4) if (place := file.find(struct.pack("<HHI", tag, kind, 1))) >= 0)
    return file[: at + 8] + struct.pack("<H", value) + file[at + 10 :]


@pytest.mark.parametrize(
    ("compression", "named"),
    [
        (34712, "JPEG 2000"),
        (50001, "WebP"),
        (50002, "JPEG XL"),
        (34887, "LERC"),
        (32771, "CCITT RLE"),
        (7777, "7777"),
    ],
)
def test_other_compressions_are_refused_by_name(compression: int, named: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=f"{named} compression"):
        read(with_tag(written(RGB, photometric="rgb"), 259, compression))


def test_lab_in_planes_is_refused() -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.buildTransform(*profiles, "RGB", "LAB").apply(PHOTO)
    values = np.asarray(lab)
    assert_shows(read(written(values, photometric="cielab", planarconfig="contig")), RGB, tolerance=14)
    with pytest.raises(UnsupportedMediaType, match="CIELAB in separate planes"):
        read(written(np.moveaxis(values, 2, 0), photometric="cielab", planarconfig="separate"))


def test_subsampled_colour_without_compression_is_decoded() -> None:
    """2 x 2 pixels have one colour: four values of brightness, then Cb and Cr (TIFF 6.0, section 21)."""
    brightness, blue, red = (np.asarray(plane) for plane in PHOTO.convert("YCbCr").split())
    blocks = brightness.reshape(60, 2, 40, 2).transpose(0, 2, 1, 3).reshape(60, 40, 4)
    values = np.dstack([blocks, blue[::2, ::2], red[::2, ::2]])
    file = written(RGB, photometric="ycbcr", planarconfig="contig", subsampling=(1, 1), rowsperstrip=120)
    start = tifffile.TiffFile(io.BytesIO(file)).pages[0].dataoffsets[0]
    body = values.tobytes()
    file = file[:start] + body + file[start + len(body) :]
    ones = struct.pack("<HHIHH", 530, 3, 2, 1, 1)
    assert file.count(ones) == 1
    found = read(file.replace(ones, struct.pack("<HHIHH", 530, 3, 2, 2, 2)))
    assert np.abs(found.astype(int) - RGB).mean() < 6


@pytest.mark.parametrize("order", ["<", ">"])
def test_large_files_of_either_byte_order(order: str) -> None:
    file = written(RGB, photometric="rgb", byteorder=order, bigtiff=True)
    if order == "<":
        assert_shows(read(file), RGB, tolerance=0)
    else:
        with pytest.raises(UnsupportedMediaType, match="big-endian BigTIFF"):
            read(file)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_values_of_fewer_bits_than_their_type_are_stretched(bits: int) -> None:
    white = 2**bits - 1
    grey, rgb = ((values.astype(int) * white // 255).astype(np.uint16) for values in (GREY, RGB))
    for layout in LAYOUTS.values():
        assert_shows(read(written(grey, photometric="minisblack", **layout)), GREY_RGB)
        assert_shows(read(written(rgb, photometric="rgb", planarconfig="contig", **layout)), RGB)
    with pytest.raises(UnsupportedMediaType, match="separate planes"):
        read(written(np.moveaxis(rgb, 2, 0), photometric="rgb", planarconfig="separate"))


def test_grey_packed_in_twelve_bits_is_scaled() -> None:
    pairs = (GREY.astype(int) * 4095 // 255).reshape(-1, 2)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
    )
    file = written(packed.astype(np.uint8).reshape(120, 120), photometric="minisblack")
    assert_shows(read(with_tag(with_tag(file, 258, 12), 256, 80)), GREY_RGB)


def test_a_tiff_without_a_directory_is_invalid() -> None:
    for file in (b"II*\0", b"II*\0\x08\0\0\0\0\0", b"MM\0*\0\0\0\x08\0\0", b"II+\0\x08\0\0\0"):
        with pytest.raises(InvalidImage):
            read(file)


def test_text_in_place_of_a_number_is_not_repeated() -> None:
    file = written(RGB, photometric="rgb")
    at = file.index(struct.pack("<HHI", 259, 3, 1))
    with pytest.raises(InvalidImage):
        read(file[:at] + struct.pack("<HHI4s", 259, 2, 4, b"bad\0") + file[at + 12 :])
