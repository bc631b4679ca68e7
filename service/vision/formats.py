"""The image formats that are decoded: how to recognise each by its signature, and what opens it."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.core.errors import InvalidImage, UnsupportedMediaType
from service.vision.parts import is_turned
from service.vision.signatures import RAW_PHOTO, refusal
from service.vision.tiff import Tiff

CONTENT_TYPES = frozenset(
    {
        "application/octet-stream",
        "image/*",
        "image/avif",
        "image/bmp",
        "image/gif",
        "image/heic",
        "image/heif",
        "image/jpeg",
        "image/jpg",
        "image/pjpeg",
        "image/png",
        "image/tif",
        "image/tiff",
        "image/webp",
        "image/x-ms-bmp",
        "image/x-png",
    }
)
"""Content types of images, besides any other image/ type. The bytes decide the format."""

FORMATS = "JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"
_ODD_BMP = (
    "BMP images with these bits per pixel or this compression are not supported; save the image with 24 bits"
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_RAW_BRANDS = {b"crx "}  # CR3


def _open_heif(file: io.BytesIO, name: str) -> ImageFile.ImageFile:
    from pillow_heif import HeifImageFile, open_heif  # 4 MB that most services do not need

    opened: ImageFile.ImageFile = HeifImageFile(file, name)  # type: ignore[no-untyped-call]
    if "exif" in opened.info and not is_turned(file.getvalue()):
        # HeifImageFile resets the orientation, even if nothing in the container turns the image.
        opened.info["exif"] = open_heif(file).info["exif"]
    return opened


def _open_bmp(file: io.BytesIO, name: str) -> ImageFile.ImageFile:
    try:
        return BmpImageFile(file, name)
    except OSError as error:
        if str(error).startswith("Unsupported BMP"):
            raise UnsupportedMediaType(_ODD_BMP) from error
        raise


# JpegImageFile instead of Pillow's factory: only the first picture of a multi-picture file matters.
OPENERS: dict[str, Callable[[io.BytesIO, str], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "BMP": _open_bmp,
    "GIF": GifImageFile,
    "TIFF": Tiff,
    "AVIF": AvifImageFile,
    "HEIF": _open_heif,
}


def identify(data: bytes) -> str:
    """The name of the format in `OPENERS`, by its signature.

    Raises `InvalidImage` and `UnsupportedMediaType`. Pillow's `accept` functions look at 16 bytes only.
    """
    if not data:
        raise InvalidImage("the image is empty")
    prefix = data[:16]
    if prefix[4:8] == b"ftyp":
        return _identify_container(data)
    for kind in OPENERS:
        if kind in Image.OPEN and _accepts(kind, prefix):
            return kind
    if detail := refusal(data):
        raise UnsupportedMediaType(detail)
    # Registers all other formats, so that the error can name this one. Few services need these modules.
    Image.init()
    for kind in list(Image.OPEN):
        if kind not in OPENERS and _accepts(kind, prefix):
            raise UnsupportedMediaType(f"{kind} images are not supported; send {FORMATS}")
    raise InvalidImage(f"the data is not an image; send {FORMATS}")


def _accepts(kind: str, prefix: bytes) -> bool:
    accept = Image.OPEN[kind][1]
    try:
        answer = accept is not None and accept(prefix)
    except (IndexError, struct.error):
        return False  # fewer bytes than the signature needs
    # Pillow returns a string if it was built without this format.
    return bool(answer) and not isinstance(answer, str)


def _identify_container(data: bytes) -> str:
    """AVIF or HEIC, by the brands of the container that both share (ISO/IEC 23008-12)."""
    brands = {data[at : at + 4] for at in range(8, min(int.from_bytes(data[:4]), len(data), 512), 4)}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIF_BRANDS:
        return "HEIF"
    if brands & _RAW_BRANDS:
        raise UnsupportedMediaType(RAW_PHOTO)
    raise InvalidImage(f"the data is a video or another container, not an image; send {FORMATS}")
