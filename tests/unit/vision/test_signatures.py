from __future__ import annotations

import gzip
import io
import time

import pytest
from PIL import Image

from service.core.errors import InvalidImage, UnsupportedMediaType
from service.vision.decode import decode

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>'


def tga(mode: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), "teal").convert(mode).save(file, "TGA", **options)
    return file.getvalue()


FILES = {
    "jxl": (b"\xff\x0a\xfa\x7f\x01" + bytes(50), "JPEG XL"),
    "jxl container": (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl " + bytes(50), "JPEG XL"),
    "jxr": (b"II\xbc\x01\x20\0\0\0" + bytes(50), "JPEG XR"),
    "exr": (b"v/1\x01\2\0\0\0" + bytes(50), "OpenEXR"),
    "hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance HDR"),
    "xcf": (b"gimp xcf v011\0" + bytes(50), "GIMP"),
    "dicom": (bytes(128) + b"DICM\2\0\0\0", "DICOM"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
    "pdf after other bytes": (b"\r\n" * 100 + b"%PDF-1.7\n", "PDF"),
    "svg": (SVG, "SVG"),
    "svg with a prolog": (
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn by hand -->\n<!DOCTYPE svg PUBLIC "a" "b">\n' + SVG,
        "SVG",
    ),
    "svg with declarations": (
        b'<?xml version="1.0"?><!DOCTYPE svg PUBLIC "a" "b" [ <!ENTITY ns "http://x/"> ]>\n' + SVG,
        "SVG",
    ),
    "svg after a long comment": (b"<!--" + b"x" * 9000 + b"-->" + SVG, "SVG"),
    "svg in UTF-16": (("\ufeff" + SVG.decode()).encode("utf-16-be"), "SVG"),
    "svg with a prefix": (b'<?xml version="1.0"?><svg:svg xmlns:svg="http://www.w3.org/2000/svg"/>', "SVG"),
    "svgz": (gzip.compress(SVG), "gzip"),
    "tga": (tga("RGB"), "TGA"),
    "tga grey": (tga("L"), "TGA"),
    "tga palette": (tga("P"), "TGA"),
    "tga alpha, run lengths": (tga("RGBA", compression="tga_rle"), "TGA"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_format_that_is_not_decoded_is_named_with_what_to_do(name: str) -> None:
    file, format_name = FILES[name]
    with pytest.raises(UnsupportedMediaType, match=f"^{format_name}.* not supported; (convert|export|send)"):
        decode(file, pixel_limit=1_000_000)


@pytest.mark.parametrize(
    "file",
    [
        b"<!DOCTYPE html><html><svg/></html>",
        b"<html><body>404</body></html>",
        b"<?xml version='1.0'?><error/>",
        b'{"error": "not found"}',
        bytes(5000),
        bytes(range(256)),
    ],
)
def test_other_data_is_not_an_image(file: bytes) -> None:
    with pytest.raises(InvalidImage, match="not an image"):
        decode(file, pixel_limit=1_000_000)


@pytest.mark.parametrize(
    "start",
    [b"<?", b"<!--", b"<!---->" * 500, b"<!DOCTYPE", b"<!DOCTYPE[]>", b" ", b"\0\2" + bytes(5), b"%PDF"],
)
def test_hostile_text_takes_little_time(start: bytes) -> None:
    began = time.thread_time()
    for _ in range(20):
        with pytest.raises((InvalidImage, UnsupportedMediaType)):
            decode(start * (1_000_000 // len(start)), pixel_limit=1_000_000)
    assert time.thread_time() - began < 1
