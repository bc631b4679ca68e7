"""Decode a photo to upright RGB pixels. Only this module parses hostile image files.

Three rules keep it safe. The signature selects one parser, so no other parser sees the bytes. The size in the
header is checked before pixels are decoded. Every exception of a parser becomes one of three errors.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH
from PIL.WebPImagePlugin import WebPImageFile

from service.core.arrays import Photo
from service.core.errors import ImageTooLarge, InvalidImage, ServiceError, UnsupportedMediaType
from service.vision.depth import (
    add_low_bytes,
    grey_scaling,
    is_dark,
    is_deep_rgb,
    open_low_bytes,
    scale_transparency,
)
from service.vision.parts import (
    JpegParts,
    count_items,
    count_png_chunks,
    count_tiff_strips,
    find_tiff_picture,
    is_turned,
    read_jpeg,
    without_extras,
)
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
_OPENERS: dict[str, Callable[[io.BytesIO, str], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "BMP": _open_bmp,
    "GIF": GifImageFile,
    "TIFF": Tiff,
    "AVIF": AvifImageFile,
    "HEIF": _open_heif,
}
_FORMATS = "JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"
_ODD_BMP = (
    "BMP images with these bits per pixel or this compression are not supported; save the image with 24 bits"
)
_DARK = (
    "images of 16 bits with transparency or in separate planes are not supported if their values have fewer "
    "bits; save the image as 8-bit RGB"
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_RAW_BRANDS = {b"crx "}  # CR3


class _Turn(NamedTuple):
    """How to turn a strip of the stored image upright.

    to_columns: whether rows become columns; backwards: whether the first strip comes last.
    """

    how: Image.Transpose | None
    to_columns: bool
    backwards: bool


_UPRIGHT = _Turn(None, False, False)
# By EXIF orientation.
_TURNS = {
    2: _Turn(Image.Transpose.FLIP_LEFT_RIGHT, False, False),
    3: _Turn(Image.Transpose.ROTATE_180, False, True),
    4: _Turn(Image.Transpose.FLIP_TOP_BOTTOM, False, True),
    5: _Turn(Image.Transpose.TRANSPOSE, True, False),
    6: _Turn(Image.Transpose.ROTATE_270, True, True),
    7: _Turn(Image.Transpose.TRANSVERSE, True, True),
    8: _Turn(Image.Transpose.ROTATE_90, True, False),
}

# Each scan of a progressive JPEG is a pass over all pixels, but may need only 75 bytes. Real files have about
# ten scans.
_SCANS_AT_PIXEL_LIMIT = 32
# Pillow keeps every segment as Python objects; 20 MB of ICC and XMP segments are about 320.
_JPEG_SEGMENT_LIMIT = 4096
# Pillow reads each chunk in Python. Encoders write chunks of 8 KB or more, and a file has at most 20 MB.
_PNG_CHUNK_LIMIT = 32_768
# Pillow makes a Python object of each strip or tile; 50 megapixels in tiles of 32 px are about this many.
_TIFF_STRIP_LIMIT = 49_152
# A phone's photo of 48 megapixels with a gain map has about 400 tiles, each in four tables.
_ITEM_LIMIT = 4096
_JPEG_END = b"\xff\xd9"
# libjpeg takes zeros in place of missing data. These bits give other pixels.
_JPEG_FILLER = b"\xaa" * 1000

# Frame markers (ITU-T T.81 and T.87). libjpeg cannot decode a lossless JPEG at a smaller scale.
_LOSSLESS = 0xC3
_UNSUPPORTED_JPEGS = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "hierarchical JPEG"),
    0xCB: "arithmetic lossless JPEG",
    0xF7: "JPEG-LS",
}

_STRIP_PIXELS = 1 << 20

_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"(PIL|pillow_heif)\."), 0)
_filter_lock = threading.Lock()


def decode(data: bytes, *, pixel_limit: int, shrinkage: Callable[[int, int], int] | None = None) -> Photo:
    """Decode one image to RGB pixels, C-contiguous, upright, transparency over white.

    shrinkage: takes width and height in px, returns the largest factor to shrink by. Only a JPEG becomes
    smaller, by 2, 4 or 8: its blocks can be decoded to their means, in a fraction of the time.

    Accepts JPEG, PNG, WebP, BMP, GIF (first frame), TIFF (first page, or the largest if that is a thumbnail),
    AVIF and HEIC. Orientation comes from EXIF, in AVIF from the container, in HEIC from the container or else
    from EXIF. More than 8 bits are scaled to 8. Colour profiles are not applied. Safe to call from several
    threads.

    Raises `InvalidImage` (empty, not an image, truncated, corrupt), `ImageTooLarge` (more than `pixel_limit`
    pixels by its header) and `UnsupportedMediaType` (an image of another format).
    """
    _silence_pillow()
    kind = _identify(data)
    try:
        jpeg = _check_jpeg(data) if kind == "JPEG" else None
        image = _open(data, kind, jpeg, pixel_limit)
        width, height = image.size
        scale = 1
        if jpeg and jpeg.frame != _LOSSLESS and shrinkage:
            scale = _draft_scale(width, height, shrinkage(width, height), _turn(image))
        size = (width // scale, height // scale)
        filled = _checksum_of_filled(data, size) if jpeg and not jpeg.ended else None
        if scale > 1:
            image.draft(None, size)
        deep, low = is_deep_rgb(image), open_low_bytes(image)
        image.load()
        if filled is not None and filled != _checksum(image):
            raise InvalidImage("the image is cut short")
        dark = deep and is_dark(image)
        if dark and not low:
            raise UnsupportedMediaType(_DARK)
        # Read again: the EXIF data of a PNG may follow its pixels.
        turn = _turn(image)
        if scale == 1:
            width, height = image.size
        if turn.to_columns:
            width, height = height, width
        pixels = _upright_rgb(image, turn)
        if dark and low:
            del image  # two decoded images at a time would take too much memory
            _add_low_bytes(pixels, low, turn)
        return Photo(pixels, width, height, scale)
    except ServiceError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(pixel_limit) from error
    except Exception as error:
        # On hostile bytes parsers raise nearly anything: OSError, SyntaxError, struct.error, even MemoryError
        # for a false length. None of these may become a 500, and their texts are not for the caller.
        raise InvalidImage("the image is damaged or cut short") from error


def has_own_threads(data: bytes) -> bool:
    """Whether the decoder of this image has its own threads, as for AVIF and HEIC."""
    return data[4:8] == b"ftyp"


def _identify(data: bytes) -> str:
    """The format by its signature. Pillow's `accept` functions only look at the first 16 bytes."""
    if not data:
        raise InvalidImage("the image is empty")
    prefix = data[:16]
    if prefix[4:8] == b"ftyp":
        return _identify_container(data)
    for kind in _OPENERS:
        if kind in Image.OPEN and _accepts(kind, prefix):
            return kind
    if detail := refusal(data):
        raise UnsupportedMediaType(detail)
    # Registers all other formats, so that the error can name this one. Few services need these modules.
    Image.init()
    for kind in list(Image.OPEN):
        if kind not in _OPENERS and _accepts(kind, prefix):
            raise UnsupportedMediaType(f"{kind} images are not supported; send {_FORMATS}")
    raise InvalidImage(f"the data is not an image; send {_FORMATS}")


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
    raise InvalidImage(f"the data is a video or another container, not an image; send {_FORMATS}")


def _open(data: bytes, kind: str, jpeg: JpegParts | None, pixel_limit: int) -> ImageFile.ImageFile:
    """Read the header only, and refuse an image that costs too much to decode."""
    tiff = find_tiff_picture(data) if kind == "TIFF" else None
    if tiff and tiff.is_raw:
        raise UnsupportedMediaType(RAW_PHOTO)
    data = tiff.data if tiff else data
    if (
        (kind == "PNG" and count_png_chunks(data, _PNG_CHUNK_LIMIT) >= _PNG_CHUNK_LIMIT)
        or (kind == "TIFF" and count_tiff_strips(data) > _TIFF_STRIP_LIMIT)
        or (kind in ("AVIF", "HEIF") and count_items(data) > _ITEM_LIMIT)
    ):
        raise InvalidImage(f"the {kind} has far more parts than an image needs")
    if kind == "PNG":
        data = without_extras(data)
    if jpeg and not jpeg.ended:
        data = data.rstrip(b"\xff") + _JPEG_END
    image = _OPENERS[kind](io.BytesIO(data), "")
    image.info.pop("xmp", None)  # Pillow would turn a TIFF by it
    if tiff and tiff.orientation in _TURNS:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = tiff.orientation
        image.info["exif"] = exif.tobytes()
    if kind == "PNG":
        scale_transparency(image)
    width, height = image.size
    check_size(width, height, pixel_limit)
    if jpeg and jpeg.scans * width * height > _SCANS_AT_PIXEL_LIMIT * pixel_limit:
        raise InvalidImage("the JPEG has far more progressive scans than an image needs")
    if isinstance(image, Tiff):
        # libtiff decodes whole tiles, even for an image that is smaller than a tile.
        tile_width, tile_height = image.tag_v2.get(TILEWIDTH, 0), image.tag_v2.get(TILELENGTH, 0)
        if not (isinstance(tile_width, int) and isinstance(tile_height, int)):
            raise InvalidImage("the TIFF has no valid tile size")
        if tile_width * tile_height > pixel_limit:
            raise _too_large(pixel_limit, tile_width, tile_height)
    return image


def _draft_scale(width: int, height: int, factor: int, turn: _Turn) -> int:
    """The largest factor of libjpeg that is not above `factor`.

    Pixels of incomplete blocks are at the end of the stored image. Turning the image could move them to the
    start and shift all other pixels, so an image that is turned must have no incomplete blocks.
    """
    whole = [scale for scale in (8, 4, 2) if turn is _UPRIGHT or width % scale == height % scale == 0]
    return next((scale for scale in whole if scale <= factor), 1)


def check_size(width: int, height: int, pixel_limit: int) -> None:
    """Raise `ImageTooLarge` for more pixels than `pixel_limit`."""
    if width * height > pixel_limit:
        raise _too_large(pixel_limit, width, height)


def _too_large(pixel_limit: int, width: int = 0, height: int = 0) -> ImageTooLarge:
    found = f"{width} x {height} pixels" if width else "too many pixels"
    return ImageTooLarge(f"the image has {found}; at most {pixel_limit / 1e6:g} megapixels are accepted")


def _check_jpeg(data: bytes) -> JpegParts:
    """Refuse a kind of JPEG that libjpeg-turbo does not decode to 8 bits, and too many segments."""
    jpeg = read_jpeg(data, _JPEG_SEGMENT_LIMIT)
    if jpeg.segments > _JPEG_SEGMENT_LIMIT:
        raise InvalidImage("the JPEG has far more segments than an image needs")
    name = _UNSUPPORTED_JPEGS.get(jpeg.frame) or (8 < jpeg.bits <= 16 and f"{jpeg.bits}-bit JPEG")
    if name:
        raise UnsupportedMediaType(f"{name} images are not supported; save the image as JPEG of 8 bits")
    return jpeg


def _checksum_of_filled(data: bytes, size: tuple[int, int]) -> int:
    """The checksum of a JPEG without end marker, with other bits in place of what may be missing.

    If no pixel is missing, the bits after the data change nothing.
    """
    filled = JpegImageFile(io.BytesIO(data.rstrip(b"\xff") + _JPEG_FILLER + _JPEG_END), "")
    filled.draft(None, size)
    filled.load()
    return _checksum(filled)


def _checksum(image: Image.Image) -> int:
    checksum = 0
    for _, _, strip in _strips(image):
        checksum = zlib.crc32(strip.tobytes(), checksum)
    return checksum


def _turn(image: Image.Image) -> _Turn:
    """By EXIF alone. Browsers ignore the orientation in XMP, which `getexif` reads too.

    A TIFF has no such EXIF: Pillow turns it while loading.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info["exif"])
        return _TURNS.get(int(exif.get(ExifTags.Base.Orientation, 1)), _UPRIGHT)
    except Exception:
        return _UPRIGHT  # broken EXIF must not cost an otherwise fine image


def _upright_rgb(image: Image.Image, turn: _Turn) -> NDArray[np.uint8]:
    """Convert strip by strip into the final array, so that no second full-size image ever exists."""
    width, height = image.size
    upright = np.empty((width, height, 3) if turn.to_columns else (height, width, 3), np.uint8)
    convert = _converter(image)
    for place, strip in _upright_strips(image, turn):
        upright[place] = convert(strip)
    return upright


def _upright_strips(image: Image.Image, turn: _Turn) -> Iterator[tuple[tuple[slice, ...], Image.Image]]:
    """The place of each strip in the upright image, and the strip, upright."""
    height = image.height
    for top, bottom, strip in _strips(image):
        if turn.how is not None:
            strip = strip.transpose(turn.how)
        place = slice(height - bottom, height - top) if turn.backwards else slice(top, bottom)
        yield (slice(None), place) if turn.to_columns else (place,), strip


def _add_low_bytes(pixels: NDArray[np.uint8], low: Image.Image, turn: _Turn) -> None:
    """Make 8-bit pixels of the high bytes of 16-bit RGB, in place."""
    brightest = int(pixels.max())
    low.load()
    for place, strip in _upright_strips(low, turn):
        pixels[place] = add_low_bytes(pixels[place], np.asarray(strip), brightest)


def _strips(image: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    """Full-width strips as (top, bottom, strip)."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
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
        arrays = (np.asarray(strip) for _, _, strip in _strips(image))
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


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files, which would be logged, or raised where warnings are errors.

    `warnings.catch_warnings` is not thread-safe. A single filter that stays first is thread-safe.
    """
    with _filter_lock:
        if warnings.filters[:1] != [_PILLOW_FILTER]:
            warnings.filterwarnings("ignore", module=_PILLOW_FILTER[3].pattern)
