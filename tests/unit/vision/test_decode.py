from __future__ import annotations

import base64
import io
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pillow_heif
import psutil
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin
from skimage import data as photographs

from service.core.errors import ImageTooLarge, InvalidImage, ServiceError, UnsupportedMediaType
from service.vision.decode import decode as decode_photo
from service.vision.decode import has_own_threads
from service.vision.formats import CONTENT_TYPES
from tests.conftest import as_stored

# Only to write HEIC files; decoding does not depend on it.
pillow_heif.register_heif_opener()

LIMIT = 50_000_000
PHOTO = Image.fromarray(photographs.astronaut()).crop((150, 0, 310, 240)).resize((80, 120))
RGB = np.asarray(PHOTO)
GREY = np.asarray(PHOTO.convert("L"))


def decode(data: bytes, *, pixel_limit: int) -> np.ndarray:
    return decode_photo(data, pixel_limit=pixel_limit).pixels


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FILES = {
    "jpeg": encode(PHOTO, "JPEG", quality=95),
    "jpeg_progressive": encode(PHOTO, "JPEG", quality=95, progressive=True),
    "png": encode(PHOTO, "PNG"),
    "webp": encode(PHOTO, "WEBP", quality=95),
    "webp_lossless": encode(PHOTO, "WEBP", lossless=True),
    "bmp": encode(PHOTO, "BMP"),
    "gif": encode(PHOTO, "GIF"),
    "tiff": encode(PHOTO, "TIFF"),
    "tiff_lzw": encode(PHOTO, "TIFF", compression="tiff_lzw"),
    "tiff_jpeg": encode(PHOTO, "TIFF", compression="jpeg", quality=95),
    "avif": encode(PHOTO, "AVIF", quality=95),
    "heic": encode(PHOTO, "HEIF", quality=95),
}
LOSSLESS = {"png", "webp_lossless", "bmp", "tiff", "tiff_lzw"}


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found.astype(int) - expected.astype(int)).mean())


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_photo(kind: str) -> None:
    pixels = decode(FILES[kind], pixel_limit=LIMIT)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    # A GIF differs most, as it has only 256 colours.
    assert difference(pixels, RGB) <= (0 if kind in LOSSLESS else 6)


def test_content_types_name_every_format() -> None:
    assert {
        f"image/{kind}" for kind in ("jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "heic", "heif")
    } <= CONTENT_TYPES


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "L"), ("JPEG", "L"), ("TIFF", "L"), ("PNG", "LA")])
def test_grey_is_repeated_over_the_channels(kind: str, mode: str) -> None:
    pixels = decode(encode(PHOTO.convert(mode), kind, quality=95), pixel_limit=LIMIT)
    assert difference(pixels, grey(GREY)) < 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_images_of_one_bit_are_decoded(kind: str) -> None:
    bits = PHOTO.convert("1")
    assert difference(decode(encode(bits, kind), pixel_limit=LIMIT), grey(np.asarray(bits) * 255)) == 0


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (GREY.astype(np.uint16) * 257, "PNG"),
        (GREY.astype(np.uint16) * 257, "TIFF"),
        ((GREY.astype(np.uint16) * 257).astype(">u2"), "TIFF"),
        (GREY.astype(np.int32) * 257, "TIFF"),
        (GREY.astype(np.int32), "TIFF"),
        (GREY.astype(np.float32), "TIFF"),
        (GREY.astype(np.float32) / 255, "TIFF"),
    ],
    ids=["png16", "tiff16", "tiff16be", "tiff32", "tiff32dark", "tiff_float", "tiff_unit_float"],
)
def test_deep_grey_is_scaled_to_eight_bits(pixels: np.ndarray, kind: str) -> None:
    deep = Image.fromarray(pixels)
    assert deep.mode in ("I", "F", "I;16", "I;16B")
    assert difference(decode(encode(deep, kind), pixel_limit=LIMIT), grey(GREY)) < 0.01


def test_float_pixels_that_are_not_numbers_are_shown_black_or_white() -> None:
    pixels = GREY.astype(np.float32)
    pixels[0, :3] = np.nan, np.inf, -np.inf
    found = decode(encode(Image.fromarray(pixels), "TIFF"), pixel_limit=LIMIT)
    assert found[0, :3, 0].tolist() == [0, 255, 0]
    assert difference(found[1:], grey(GREY[1:])) == 0


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP"])
def test_images_with_a_palette_are_decoded(kind: str) -> None:
    palette = PHOTO.quantize(64)
    assert (
        difference(decode(encode(palette, kind), pixel_limit=LIMIT), np.asarray(palette.convert("RGB"))) == 0
    )


def half_transparent(mode: str) -> tuple[Image.Image, np.ndarray]:
    """Returns the photo with an opaque left half and a transparent right half, and this photo on white."""
    alpha = np.full(RGB.shape[:2], 255, np.uint8)
    alpha[:, 40:] = 0
    image = PHOTO.convert("RGB" if mode == "RGBA" else "L")
    on_white = np.asarray(image.convert("RGB")).copy()
    on_white[:, 40:] = 255
    image.putalpha(Image.fromarray(alpha))
    return image, on_white


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGBA", "TIFF", {}),
        ("LA", "TIFF", {}),
        ("RGBA", "AVIF", {"quality": 100}),
        ("RGBA", "HEIF", {}),
    ],
)
def test_transparent_images_are_put_on_white(mode: str, kind: str, options: dict[str, object]) -> None:
    image, on_white = half_transparent(mode)
    found = decode(encode(image, kind, **options), pixel_limit=LIMIT)
    assert difference(found[:, :36], on_white[:, :36]) < 6
    assert difference(found[:, 44:], on_white[:, 44:]) < 1


def test_half_alpha_mixes_with_white() -> None:
    found = decode(encode(Image.new("RGBA", (8, 8), (0, 0, 200, 128)), "PNG"), pixel_limit=LIMIT)
    assert found[4, 4].tolist() == pytest.approx([127, 127, 227], abs=1)


@pytest.mark.parametrize(
    ("image", "transparency"),
    [
        (Image.new("RGB", (8, 8), (10, 20, 30)), (10, 20, 30)),
        (Image.new("L", (8, 8), 77), 77),
        (Image.new("P", (8, 8), 3), 3),
        (Image.new("P", (8, 8), 3), b"\xff\x80\x40\x00"),
    ],
    ids=["RGB", "L", "P", "P_table"],
)
def test_transparent_colour_of_a_png_is_white(image: Image.Image, transparency: object) -> None:
    if image.mode == "P":
        image.putpalette([9, 9, 9] * 4)
    found = decode(encode(image, "PNG", transparency=transparency), pixel_limit=LIMIT)
    assert (found == 255).all()


def test_transparent_gif_is_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, 200, 0, 0])
    assert (decode(encode(image, "GIF", transparency=1), pixel_limit=LIMIT) == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind: str) -> None:
    found = decode(encode(PHOTO.convert("CMYK"), kind), pixel_limit=LIMIT)
    assert difference(found, RGB) < 4


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
def test_ycck_is_decoded(options: dict[str, Any]) -> None:
    """Photoshop stores CMYK like this. Pillow does not: it inverts what it stores."""
    inverted = Image.fromarray(255 - RGB).convert("YCbCr")
    channels = [255 - np.asarray(channel) for channel in inverted.split()]
    stored = Image.fromarray(np.dstack([*channels, np.zeros_like(GREY)]), "CMYK")
    file = encode(stored, "JPEG", quality=95, **options)
    at = file.index(b"Adobe") + 11  # the colour transform
    assert difference(decode(file[:at] + b"\2" + file[at + 1 :], pixel_limit=LIMIT), RGB) < 5


def test_heic_of_more_bits_is_decoded() -> None:
    file = io.BytesIO()
    values = RGB.astype(np.uint16) * 257
    pillow_heif.from_bytes("RGB;16", PHOTO.size, values.tobytes()).save(file, quality=95)
    assert b"\x03\x0a\x0a\x0a" in file.getvalue() or b"\x03\x0c\x0c\x0c" in file.getvalue()  # pixi
    assert difference(decode(file.getvalue(), pixel_limit=LIMIT), RGB) < 5


def test_lab_and_ycbcr_tiffs_are_decoded() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = to_lab.apply(PHOTO)
    assert lab.mode == "LAB"
    assert difference(decode(encode(lab, "TIFF"), pixel_limit=LIMIT), RGB) < 4
    assert difference(decode(encode(PHOTO.convert("YCbCr"), "TIFF"), pixel_limit=LIMIT), RGB) < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "HEIF"])
def test_has_own_threads_is_true_only_for_multithreaded_decoders(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    file = encode(Image.fromarray(noise), kind, **{"speed": 10} if kind == "AVIF" else {})
    thread_s, process_s = time.thread_time(), time.process_time()
    decode(file, pixel_limit=LIMIT)
    thread_s, process_s = time.thread_time() - thread_s, time.process_time() - process_s
    assert has_own_threads(file) == (kind in ("AVIF", "HEIF"))
    assert has_own_threads(file) or thread_s > process_s / 2


def test_an_animation_gives_its_first_frame() -> None:
    other = Image.new("RGB", PHOTO.size, "red")
    for kind in ("GIF", "WEBP", "PNG"):
        file = encode(PHOTO, kind, save_all=True, append_images=[other])
        assert difference(decode(file, pixel_limit=LIMIT), RGB) < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = encode(as_stored(PHOTO, orientation), kind, exif=exif.tobytes(), quality=95)
    photo = decode_photo(file, pixel_limit=LIMIT)
    assert photo.pixels.flags.c_contiguous
    assert (photo.width, photo.height, photo.scale) == (*PHOTO.size, 1)
    assert difference(photo.pixels, RGB) < 5


def test_heic_is_turned_by_its_container_and_not_again_by_its_exif() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = encode(as_stored(PHOTO, 6), "HEIF", exif=exif.tobytes(), quality=95)
    assert b"irot" in file
    assert b"Exif" in file
    assert difference(decode(file, pixel_limit=LIMIT), RGB) < 5


def with_orientation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def xmp(orientation: int) -> bytes:
    return (
        b'<rdf:Description tiff:Orientation="%d" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/>' % orientation
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_without_rotation_is_turned_by_its_exif(orientation: int) -> None:
    upright = encode(as_stored(PHOTO, orientation), "HEIF", exif=with_orientation(1), quality=95)
    assert b"irot" not in upright
    file = upright.replace(with_orientation(1)[6:], with_orientation(orientation)[6:])
    assert difference(decode(file, pixel_limit=LIMIT), RGB) < 5


@pytest.mark.parametrize("exif", [b"", with_orientation(1)], ids=["without_exif", "with_exif"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_orientation_in_xmp_is_ignored(kind: str, exif: bytes) -> None:
    options: dict[str, Any] = {"xmp": xmp(1), "quality": 95} | ({"exif": exif} if exif else {})
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp(6).decode())
    elif kind == "TIFF":
        options["tiffinfo"] = {700: xmp(1)}
    upright = encode(PHOTO, kind, **options)
    # Encoders turn the image themselves for another orientation.
    file = upright.replace(xmp(1), xmp(6))
    assert xmp(6) in file
    assert difference(decode(file, pixel_limit=LIMIT), RGB) < 6


def test_orientation_in_exif_counts_beside_xmp() -> None:
    for kind in ("JPEG", "WEBP"):
        file = encode(as_stored(PHOTO, 6), kind, exif=with_orientation(6), xmp=xmp(1), quality=95)
        assert difference(decode(file, pixel_limit=LIMIT), RGB) < 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_strips_join_without_a_seam(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.vision.upright.STRIP_PIXELS", 7 * 80)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert (
        difference(decode(encode(as_stored(PHOTO, orientation), "PNG", exif=exif), pixel_limit=LIMIT), RGB)
        == 0
    )


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x02\x00\xff\xff\xff\x7f" * 9,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04upup\0\0\0\0",
    ],
)
def test_broken_exif_is_ignored(exif: bytes) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        file = encode(PHOTO, kind, exif=exif, quality=95)
        assert difference(decode(file, pixel_limit=LIMIT), RGB) < 5


def test_large_metadata_is_accepted() -> None:
    profile = np.random.default_rng(0).bytes(700_000)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        file = encode(PHOTO, kind, icc_profile=profile, quality=95)
        assert len(file) > 700_000
        assert difference(decode(file, pixel_limit=LIMIT), RGB) < 5


def test_multi_picture_jpeg_gives_the_first_picture() -> None:
    file = encode(
        PHOTO, "MPO", save_all=True, append_images=[Image.new("RGB", PHOTO.size, "red")], quality=95
    )
    assert difference(decode(file, pixel_limit=LIMIT), RGB) < 5


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9])
def test_truncated_image_is_invalid(kind: str, kept: float) -> None:
    file = FILES[kind]
    with pytest.raises(InvalidImage) as caught:
        decode(file[: int(len(file) * kept)], pixel_limit=LIMIT)
    assert caught.value.status == 400


JPEGS: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "baseline": (PHOTO, {}),
    "fine": (PHOTO, {"subsampling": 0, "quality": 97}),
    "progressive": (PHOTO, {"progressive": True}),
    "restarts": (PHOTO, {"restart_marker_rows": 2}),
    "grey": (PHOTO.convert("L"), {}),
    "cmyk": (PHOTO.convert("CMYK"), {}),
    "turned": (PHOTO, {"exif": with_orientation(6)}),
}


@pytest.mark.parametrize("rest", [b"", b"\xff", bytes(500), b"\xff\xff\xff"])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end_marker_is_decoded(name: str, rest: bytes) -> None:
    image, options = JPEGS[name]
    whole = encode(image, "JPEG", **options)
    assert whole.endswith(b"\xff\xd9")
    for shrinkage in (1, 2, 8):
        file, expected = (
            decode_photo(data, pixel_limit=LIMIT, shrinkage=lambda *_, to=shrinkage: to)
            for data in (whole[:-2] + rest, whole)
        )
        assert file.scale == expected.scale
        assert np.array_equal(file.pixels, expected.pixels)


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_lacks_pixels_is_invalid(name: str) -> None:
    image, options = JPEGS[name]
    whole = encode(image, "JPEG", **options)
    for lost in (*range(4, 40), 100, 500):
        with pytest.raises(InvalidImage, match="cut short"):
            decode(whole[: -2 - lost], pixel_limit=LIMIT)


# Eight and eight shades from black to white: no package writes such files.
RARE_JPEGS = {
    "arithmetic": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQER"
        "MUFRUVDA8XGBYUGBIUFRT/yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wDn4Yz6JRhvnHJ443pEKB+JS8unVI20rrkP"
        "+mZ7LP/Z"
    ),
    "progressive arithmetic": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQER"
        "MUFRUVDA8XGBYUGBIUFRT/ygALCAAQABABAREA/8wABAAQ/9oACAEBAAAAAf8Az+CMCKYQ/8wABBAF/9oACAEBAAEFAhWo86kW"
        "hnYvO//MAAQQBf/aAAgBAQAGPwJeFP/MAAQQBf/aAAgBAQABPyHXbnL/2gAIAQEAAAAQ4P/MAAQQBf/aAAgBAQABPxAkWWO2WA"
        "j/2Q=="
    ),
    "lossless": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALCAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAABAMI/9oACAEBAAcAAM/1rWta1r"
        "Wta1rVSEIQhCEIQhCEIUhCEIQhCEIQhCFIQhCEIQhCEIQhSEIQhCEIQhCEIUhCEIQhCEIQhCFIQhCEIQhCEIQhSEIQhCEIQhCE"
        "IUhCEIQhCEIQhCFIQhCEIQhCEIQhSEIQhCEIQhCEIUhCEIQhCEIQhCFIQhCEIQhCEIQhSEIQhCEIQhCEIUhCEIQhCEIQhCFIQh"
        "CEIQhCEIQj/9k="
    ),
}


@pytest.mark.parametrize("name", RARE_JPEGS)
def test_rare_kinds_of_jpeg_are_decoded(name: str) -> None:
    ramp = np.add.outer(np.arange(0, 160, 10), np.arange(0, 80, 5)).astype(np.uint8)
    for factor in (1, 2):
        photo = decode_photo(
            base64.b64decode(RARE_JPEGS[name]), pixel_limit=LIMIT, shrinkage=lambda *_, to=factor: to
        )
        scaled = np.asarray(Image.fromarray(ramp).reduce(photo.scale))
        assert difference(photo.pixels, grey(scaled)) < 2


@pytest.mark.parametrize(
    ("marker", "bits", "name"),
    [
        (0xC1, 12, "12-bit JPEG"),
        (0xC3, 16, "16-bit JPEG"),
        (0xC5, 8, "hierarchical JPEG"),
        (0xDE, 8, "hierarchical JPEG"),
        (0xF7, 8, "JPEG-LS"),
    ],
)
def test_other_kinds_of_jpeg_are_unsupported_by_name(marker: int, bits: int, name: str) -> None:
    at = FILES["jpeg"].index(b"\xff\xc0")
    file = FILES["jpeg"][: at + 1] + bytes((marker, 0, 17, bits)) + FILES["jpeg"][at + 5 :]
    with pytest.raises(UnsupportedMediaType, match=f"{name} images are not supported; save"):
        decode(file, pixel_limit=LIMIT)


def with_chunk(chunk: bytes, before: bytes = b"IDAT") -> bytes:
    at = FILES["png"].index(before) - 4
    return FILES["png"][:at] + chunk + FILES["png"][at:]


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("kind", [b"tEXt", b"pHYs", b"eXIf", b"tRNS", b"iCCP", b"acTL", b"prVt"])
def test_ancillary_chunks_of_a_png_may_be_damaged(kind: bytes, before: bytes) -> None:
    chunk = png_chunk(kind, b"damaged")
    for damaged in (chunk[:-1] + b"\0", chunk if kind != b"tRNS" else b"", chunk[:-4] + b"\0\0\0\0"):
        assert np.array_equal(decode(with_chunk(damaged, before), pixel_limit=LIMIT), RGB)


def test_a_png_may_end_after_its_pixels() -> None:
    file = FILES["png"]
    end = file.index(b"IEND") - 4
    for rest in (
        file[end:] + b"more",
        file[end:-4] + b"\0\0\0\0",
        b"",
        png_chunk(b"tEXt", b"a\0b" * 9)[:-20],
    ):
        assert np.array_equal(decode(file[:end] + rest, pixel_limit=LIMIT), RGB)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
def test_critical_chunks_of_a_png_must_be_intact(kind: bytes) -> None:
    file = bytearray(encode(PHOTO.quantize(16), "PNG"))
    at = file.index(kind)
    file[at + 4 + int.from_bytes(file[at - 4 : at])] ^= 1
    with pytest.raises(InvalidImage):
        decode(bytes(file), pixel_limit=LIMIT)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "tEXt"])
def test_large_metadata_of_a_png_is_not_inflated(kind: str) -> None:
    packed = b"x" * 5_000_000 if kind == "tEXt" else zlib.compress(bytes(100_000_000))
    head = {"zTXt": b"a\0\0", "iTXt": b"XML:com.adobe.xmp\0\1\0\0\0", "iCCP": b"a\0\0", "tEXt": b"a\0"}[kind]
    for before in (b"IDAT", b"IEND"):
        file = with_chunk(png_chunk(kind.encode(), head + packed), before)
        with PeakMemory() as peak:
            assert np.array_equal(decode(file, pixel_limit=LIMIT), RGB)
        assert peak.grown_bytes < 20e6
        assert peak.seconds < 0.5


@pytest.mark.parametrize("file", [b"", b"\xff", b"\xff\xd8\xff", b"hello, I am no JPEG", b"\0" * 5000, b"BM"])
def test_data_that_is_not_an_image_is_invalid(file: bytes) -> None:
    with pytest.raises(InvalidImage):
        decode(file, pixel_limit=LIMIT)


def test_a_video_in_the_container_of_heic_is_invalid() -> None:
    with pytest.raises(InvalidImage, match="video"):
        decode(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 100, pixel_limit=LIMIT)


@pytest.mark.parametrize("kind", ["ICO", "PPM", "PCX", "SGI", "DDS", "JPEG2000", "ICNS", "QOI"])
def test_other_formats_are_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=kind) as caught:
        decode(encode(PHOTO.resize((64, 64)), kind), pixel_limit=LIMIT)
    assert caught.value.status == 415


@pytest.mark.parametrize("prefix", [b"8BPS\0\x01", b"%!PS-Adobe-3.0", b"SIMPLE  =", b"\x89HDF\r\n\x1a\n"])
def test_other_formats_are_recognised_by_signature_alone(prefix: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        decode(prefix + b"\xff" * 200, pixel_limit=LIMIT)


THUMBNAIL = np.asarray(PHOTO.resize((8, 12)).transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def tiff_pages(*pages: tuple[np.ndarray, dict[str, Any]], **options: Any) -> bytes:
    """A TIFF of pages, with tifffile's options for each. `subifds=N` puts the next N into the page."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as tiff:
        for pixels, of_page in pages:
            tiff.write(pixels, photometric=of_page.pop("photometric", "rgb"), metadata=None, **of_page)
    return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"bigtiff": True}])
@pytest.mark.parametrize("place", ["inside", "inside_two", "inside_unmarked", "next_page"])
def test_a_tiff_with_a_thumbnail_gives_its_largest_picture(place: str, options: dict[str, Any]) -> None:
    inner = place.count("inside") + place.count("two")
    first = {"subfiletype": int(place != "inside_unmarked"), **({"subifds": inner} if inner else {})}
    preview = (RGB[::2, ::2, ::-1], {"subfiletype": 1})
    pages = [(THUMBNAIL, first), *([preview] if inner == 2 else []), (RGB, {"subfiletype": 0})]
    assert np.array_equal(decode(tiff_pages(*pages, **options), pixel_limit=LIMIT), RGB)


@pytest.mark.parametrize("inner", [0, 1])
def test_a_first_page_with_a_quarter_of_the_pixels_is_a_thumbnail(inner: int) -> None:
    """Some programs mark no page as a thumbnail."""
    pages = [(THUMBNAIL, {"subifds": inner} if inner else {}), *[(RGB[::3, ::3], {})] * inner]
    file = tiff_pages(*pages, (RGB, {}), (np.zeros_like(RGB), {}))
    assert np.array_equal(decode(file, pixel_limit=LIMIT), RGB)
    quarter = tiff_pages((RGB[::2, ::2], {}), (RGB, {}))
    assert np.array_equal(decode(quarter, pixel_limit=LIMIT), RGB)


def test_a_tiff_gives_its_first_page_unless_that_is_a_thumbnail() -> None:
    other = np.zeros((200, 190, 3), np.uint8)
    mask = (np.ones((300, 300), bool), {"subfiletype": 4, "photometric": "minisblack"})
    assert np.array_equal(decode(tiff_pages((RGB, {}), (other, {})), pixel_limit=LIMIT), RGB)
    # A pyramid, and a mask that is larger than its picture.
    assert np.array_equal(
        decode(tiff_pages((RGB, {"subifds": 1}), (THUMBNAIL, {"subfiletype": 1})), pixel_limit=LIMIT), RGB
    )
    assert np.array_equal(decode(tiff_pages((RGB, {"subifds": 1}), mask), pixel_limit=LIMIT), RGB)
    assert np.array_equal(decode(tiff_pages((RGB, {"subfiletype": 1})), pixel_limit=LIMIT), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_thumbnail_holds_for_the_picture_inside(orientation: int) -> None:
    stored = np.asarray(as_stored(PHOTO, orientation))
    turned = {"subfiletype": 1, "subifds": 1, "extratags": [(274, 3, 1, orientation, True)]}
    file = tiff_pages((THUMBNAIL, turned), (stored, {"subfiletype": 0}))
    assert np.array_equal(decode(file, pixel_limit=LIMIT), RGB)


def test_the_size_of_the_largest_picture_is_checked() -> None:
    file = tiff_pages((THUMBNAIL, {"subfiletype": 1, "subifds": 1}), (RGB, {"subfiletype": 0}))
    with pytest.raises(ImageTooLarge, match="80 x 120"):
        decode(file, pixel_limit=80 * 120 - 1)


@pytest.mark.parametrize("photometric", ["cfa", "linear_raw"])
def test_a_raw_photo_is_unsupported(photometric: str) -> None:
    sensor = (GREY if photometric == "cfa" else RGB).astype(np.uint16) * 16
    dng = [(50706, 1, 4, b"\1\4\0\0", True)]
    inside = tiff_pages(
        (THUMBNAIL, {"subfiletype": 1, "subifds": 1, "extratags": dng}),
        (sensor, {"photometric": photometric}),
    )
    for file in (inside, tiff_pages((sensor, {"photometric": photometric}))):
        with pytest.raises(UnsupportedMediaType, match="raw photos of a camera are not supported; export"):
            decode(file, pixel_limit=LIMIT)


@pytest.mark.parametrize(
    "file",
    [
        FILES["tiff"][:4] + b"\x10\0\0\0CR\2\0" + FILES["tiff"][12:],
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(100),
        b"FUJIFILMCCD-RAW 0201" + bytes(100),
        b"IIRO\x08\0\0\0" + bytes(100),
        b"IIU\0\x18\0\0\0" + bytes(100),
    ],
    ids=["CR2", "CR3", "RAF", "ORF", "RW2"],
)
def test_raw_photos_are_recognised_by_signature(file: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="raw photos"):
        decode(file, pixel_limit=LIMIT)


@pytest.mark.parametrize(
    ("bits", "compression", "masks"),
    [
        (32, 3, (0x3FF00000, 0xFFC00, 0x3FF)),
        (16, 3, (0xF00, 0xF0, 0xF)),
        (24, 4, (0, 0, 0)),  # JPEG
        (2, 0, (0, 0, 0)),
        (64, 0, (0, 0, 0)),
    ],
)
def test_a_bmp_of_an_odd_kind_is_unsupported(bits: int, compression: int, masks: tuple[int, ...]) -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 80, 120, 1, bits, compression, 0, 0, 0, 0, 0)
    file = (
        b"BM" + struct.pack("<IHHI", 80_000, 0, 0, 66) + header + struct.pack("<III", *masks) + bytes(76_800)
    )
    with pytest.raises(UnsupportedMediaType, match="BMP"):
        decode(file, pixel_limit=LIMIT)


def bmp(masks: tuple[int, ...], bits: int, alpha: np.ndarray | int = 0, *, top_down: bool = False) -> bytes:
    """The photo with these bits of red, green, blue and alpha, and a header of version 4."""
    stored = np.zeros(GREY.shape, np.uint32)
    for mask, channel in zip(
        masks, (*np.moveaxis(RGB, 2, 0), np.broadcast_to(alpha, GREY.shape)), strict=True
    ):
        lowest = max(mask & -mask, 1)
        stored |= np.rint(channel / 255 * (mask // lowest)).astype(np.uint32) * np.uint32(lowest)
    body = (stored if top_down else stored[::-1]).astype(f"<u{bits // 8}").tobytes()
    height = -120 if top_down else 120
    header = struct.pack("<IiiHHIIiiII", 108, 80, height, 1, bits, 3, len(body), 0, 0, 0, 0)
    header += struct.pack("<4I", *masks) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 122 + len(body), 0, 0, 122) + header + body


BMP_MASKS = {
    "555": ((0x7C00, 0x3E0, 0x1F, 0), 16),
    "1555": ((0x7C00, 0x3E0, 0x1F, 0x8000), 16),
    "565": ((0xF800, 0x7E0, 0x1F, 0), 16),
    "BGRX": ((0xFF0000, 0xFF00, 0xFF, 0), 32),
    "BGRA": ((0xFF0000, 0xFF00, 0xFF, 0xFF000000), 32),
    "RGBA": ((0xFF, 0xFF00, 0xFF0000, 0xFF000000), 32),
}


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("name", BMP_MASKS)
def test_the_colours_of_a_bmp_do_not_depend_on_its_alpha_bits(name: str, top_down: bool) -> None:
    """Programs that know no transparency leave all of them 0."""
    masks, bits = BMP_MASKS[name]
    for alpha in (0, 255):
        found = decode(bmp(masks, bits, alpha, top_down=top_down), pixel_limit=LIMIT)
        assert np.abs(found.astype(int) - RGB).max() <= (5 if bits == 16 else 0)


def test_a_bmp_with_transparent_pixels_is_put_on_white() -> None:
    image, on_white = half_transparent("RGBA")
    file = bmp(*BMP_MASKS["BGRA"], np.asarray(image)[..., 3])
    assert np.array_equal(decode(file, pixel_limit=LIMIT), on_white)


def test_details_are_plain_sentences() -> None:
    hostile = [
        b"",
        b"no image",
        FILES["png"][:300],
        FILES["jpeg"][:900],
        png_header(60_000, 60_000),
        b"8BPS\0\x01",
    ]
    for file in hostile:
        with pytest.raises(ServiceError) as caught:
            decode(file, pixel_limit=LIMIT)
        detail = caught.value.detail
        assert not any(sign in detail for sign in ("<", "/", "\\", "0x", "Error", "PIL", "bytes", "\n"))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = zlib.compress(bytes(100_000))
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", idat) + png_chunk(b"IEND", b"")
    )


def gif_header(width: int, height: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"


def bmp_header(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(99)
    )


def tiff_file(width: int, height: int, tile: int | None = None) -> bytes:
    data = zlib.compress(bytes(tile * tile if tile else 100))
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: tile, 323: tile, 324: 8, 325: len(data)} if tile else {273: 8, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<L", 8 + len(data)) + data + directory


def webp_header(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    still = encode(Image.new("RGB", (16, 16)), "WEBP")[12:]
    frame = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4) + still
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_other_size(file: bytes, width: int, height: int) -> bytes:
    """An AVIF or HEIC whose header claims another size."""
    at = file.index(b"ispe") + 8
    return file[:at] + struct.pack(">II", width, height) + file[at + 8 :]


def jpeg_header(width: int, height: int, **options: object) -> bytes:
    file = encode(PHOTO, "JPEG", **options)
    at = file.index(b"\xff\xc2" if options else b"\xff\xc0") + 5
    return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]


BOMBS: dict[str, Callable[[], bytes]] = {
    "png": lambda: png_header(60_000, 60_000),
    "png_99_megapixels": lambda: png_header(11_000, 9_000),
    "jpeg": lambda: jpeg_header(60_000, 60_000),
    "jpeg_progressive": lambda: jpeg_header(60_000, 60_000, progressive=True),
    "gif": lambda: gif_header(60_000, 60_000),
    "bmp": lambda: bmp_header(60_000, 60_000),
    "tiff": lambda: tiff_file(60_000, 60_000),
    "tiff_tile": lambda: tiff_file(64, 64, tile=8_000),
    "webp": lambda: webp_header(13_000, 13_000),
    "webp_beyond_pillow": lambda: webp_header(60_000, 60_000),
    "avif": lambda: with_other_size(FILES["avif"], 15_000, 15_000),
    "heic": lambda: with_other_size(FILES["heic"], 30_000, 30_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_image_that_is_too_large_is_refused_by_its_header(name: str) -> None:
    file = BOMBS[name]()
    with PeakMemory() as peak, pytest.raises(ImageTooLarge) as caught:
        decode(file, pixel_limit=LIMIT)
    assert caught.value.status == 413
    assert "50 megapixels" in caught.value.detail
    assert peak.grown_bytes < 20e6
    # Decoding any of these files in full takes seconds. A busy machine needs some slack.
    assert peak.seconds < 0.5


class PeakMemory:
    """Peak growth of the process in a block, sampled by another thread, and CPU time of this thread."""

    def __enter__(self) -> PeakMemory:
        self._process, self._done = psutil.Process(), threading.Event()
        self._before = self._highest = self._process.memory_info().rss
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        self._started = time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.thread_time() - self._started
        self._done.set()
        self._sampler.join()
        self.grown_bytes = self._highest - self._before

    def _sample(self) -> None:
        while True:
            self._highest = max(self._highest, self._process.memory_info().rss)
            if self._done.wait(0.001):
                self._highest = max(self._highest, self._process.memory_info().rss)
                return


def test_an_image_of_exactly_the_limit_is_allowed() -> None:
    assert decode(FILES["png"], pixel_limit=80 * 120).shape == (120, 80, 3)
    with pytest.raises(ImageTooLarge, match="80 x 120"):
        decode(FILES["png"], pixel_limit=80 * 120 - 1)


def test_no_full_size_copy_is_made_beside_the_image() -> None:
    file = encode(Image.new("RGB", (4000, 4000), "teal"), "PNG")
    with PeakMemory() as peak:
        pixels = decode(file, pixel_limit=LIMIT)
    assert pixels.nbytes == 48e6
    # Pillow keeps 4 bytes per pixel, and the array has 3. A second copy would take the sum to 160 MB.
    assert peak.grown_bytes < 140e6


def test_a_progressive_jpeg_with_too_many_scans_is_refused() -> None:
    file = encode(Image.new("L", (2000, 2000), 128), "JPEG", progressive=True)
    last_scan = file[file.rindex(b"\xff\xda") : -2]
    decoy = b"\xff\xfe\x00\x04\xff\xd9"  # a comment that looks like the end of the image
    bomb = file[:-2] + (decoy + last_scan) * 500 + b"\xff\xd9"
    started = time.thread_time()
    with pytest.raises(InvalidImage, match="scans"):
        decode(bomb, pixel_limit=LIMIT)
    assert time.thread_time() - started < 0.5
    assert decode(file[:-2] + last_scan * 50 + b"\xff\xd9", pixel_limit=LIMIT).shape == (2000, 2000, 3)


def test_a_jpeg_with_too_many_segments_is_refused() -> None:
    with pytest.raises(InvalidImage, match="segments"):
        decode(FILES["jpeg"][:2] + b"\xff\xe5\x00\x02" * 100_000 + FILES["jpeg"][2:], pixel_limit=LIMIT)


@pytest.mark.parametrize("file", [png_header(0, 10), png_header(10, 0), gif_header(0, 0), bmp_header(0, 5)])
def test_images_without_pixels_are_invalid(file: bytes) -> None:
    with pytest.raises(InvalidImage):
        decode(file, pixel_limit=LIMIT)


def survives(file: bytes) -> None:
    """Check that `decode` returns an image within the limit or refuses the file."""
    try:
        pixels = decode(file, pixel_limit=1_000_000)
    except (InvalidImage, ImageTooLarge, UnsupportedMediaType):
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= 1_000_000


ENCODINGS: list[tuple[Image.Image, str, dict[str, Any]]] = [
    (
        PHOTO.resize((16, 24)),
        "JPEG",
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"},
    ),
    (PHOTO.resize((16, 24)).convert("CMYK"), "JPEG", {"progressive": True}),
    (PHOTO.resize((16, 24)), "PNG", {}),
    (PHOTO.resize((16, 24)).quantize(16), "PNG", {"transparency": b"\x00\x7f\xff"}),
    (PHOTO.resize((16, 24)), "WEBP", {}),
    (PHOTO.resize((16, 24)), "BMP", {}),
    (PHOTO.resize((16, 24)), "GIF", {}),
    (PHOTO.resize((16, 24)), "TIFF", {}),
    (PHOTO.resize((16, 24)), "TIFF", {"compression": "tiff_adobe_deflate"}),
    (PHOTO.resize((16, 24)).convert("F"), "TIFF", {}),
    (PHOTO.resize((16, 24)), "AVIF", {}),
    (PHOTO.resize((64, 64)), "HEIF", {}),
]
SMALL = [encode(image, kind, **options) for image, kind, options in ENCODINGS]


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    file=st.sampled_from(SMALL),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    header_only=st.booleans(),
)
def test_flipped_bytes_give_an_image_or_an_error(
    file: bytes, flips: list[tuple[float, int]], header_only: bool
) -> None:
    damaged = bytearray(file)
    for place, value in flips:
        damaged[int(place * (min(len(file), 200) if header_only else len(file)))] = value
    survives(bytes(damaged))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    prefix=st.sampled_from([b"", *(file[:16] for file in SMALL), b"II*\0\x08\0\0\0", b"\0\0\0\x14ftypmif1"]),
    rest=st.binary(max_size=300),
)
def test_random_bytes_give_an_image_or_an_error(prefix: bytes, rest: bytes) -> None:
    survives(prefix + rest)


def test_decoding_in_parallel_changes_neither_results_nor_warnings() -> None:
    broken = encode(
        PHOTO, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x02\0\xff\xff\xff\x7f" * 9
    )
    files = [*FILES.values(), broken] * 6
    expected = {file: decode(file, pixel_limit=LIMIT) for file in files}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda file: decode(file, pixel_limit=LIMIT), files))
    assert all(np.array_equal(pixels, expected[file]) for file, pixels in zip(files, found, strict=True))
    with pytest.raises(UserWarning, match="ours"):
        warnings.warn("ours", UserWarning, stacklevel=1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize(("factor", "scale"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 8), (30, 8)])
def test_a_jpeg_is_decoded_at_a_smaller_scale(factor: int, scale: int, orientation: int) -> None:
    # Only upright images may have sides that the factor does not divide.
    width, height = (802, 603) if orientation == 1 else (800, 600)
    smooth = PHOTO.resize((width, height))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = encode(as_stored(smooth, orientation), "JPEG", quality=95, exif=exif)
    sizes: list[tuple[int, int]] = []

    def shrinkage(width: int, height: int) -> int:
        sizes.append((width, height))
        return factor

    photo = decode_photo(file, pixel_limit=LIMIT, shrinkage=shrinkage)
    assert sorted(sizes[0]) == [height, width]
    assert (photo.width, photo.height, photo.scale) == (width, height, scale)
    assert photo.pixels.shape == (-(-height // scale), -(-width // scale), 3)
    assert photo.pixels.flags.writeable
    assert difference(photo.pixels, np.asarray(smooth.reduce(scale))) < 3


def test_a_rotated_jpeg_of_odd_sides_keeps_its_size() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    file = encode(as_stored(PHOTO.resize((801, 600)), 3), "JPEG", exif=exif)
    photo = decode_photo(file, pixel_limit=LIMIT, shrinkage=lambda width, height: 8)
    assert (photo.scale, photo.pixels.shape) == (1, (600, 801, 3))


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_other_formats_keep_their_size(kind: str) -> None:
    photo = decode_photo(FILES[kind], pixel_limit=LIMIT, shrinkage=lambda width, height: 4)
    assert (photo.scale, photo.pixels.shape) == (1, (photo.height, photo.width, 3))
