"""Decode a photo to upright RGB pixels. Only this module parses hostile image files.

Three rules keep it safe. The signature selects one parser, so no other parser sees the bytes. The size in the
header is checked before pixels are decoded. Every exception of a parser becomes one of three errors.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
import zlib
from collections.abc import Callable

from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH

from service.core.arrays import Photo
from service.core.errors import ImageTooLarge, InvalidImage, ServiceError, UnsupportedMediaType
from service.vision.depth import is_dark, is_deep_rgb, open_low_bytes, scale_transparency
from service.vision.formats import OPENERS, identify
from service.vision.parts import (
    JpegParts,
    count_items,
    count_png_chunks,
    count_tiff_strips,
    find_tiff_picture,
    read_jpeg,
    without_extras,
)
from service.vision.signatures import RAW_PHOTO
from service.vision.tiff import Tiff
from service.vision.upright import TURNS, UPRIGHT, Turn, add_low_bytes, strips, turn_of, upright_rgb

_DARK = (
    "images of 16 bits with transparency or in separate planes are not supported if their values have fewer "
    "bits; save the image as 8-bit RGB"
)
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
    kind = identify(data)
    try:
        jpeg = _check_jpeg(data) if kind == "JPEG" else None
        image = _open(data, kind, jpeg, pixel_limit)
        width, height = image.size
        scale = 1
        if jpeg and jpeg.frame != _LOSSLESS and shrinkage:
            scale = _draft_scale(width, height, shrinkage(width, height), turn_of(image))
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
        turn = turn_of(image)
        if scale == 1:
            width, height = image.size
        if turn.to_columns:
            width, height = height, width
        pixels = upright_rgb(image, turn)
        if dark and low:
            del image  # two decoded images at a time would take too much memory
            add_low_bytes(pixels, low, turn)
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
    image = OPENERS[kind](io.BytesIO(data), "")
    image.info.pop("xmp", None)  # Pillow would turn a TIFF by it
    if tiff and tiff.orientation in TURNS:
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


def _draft_scale(width: int, height: int, factor: int, turn: Turn) -> int:
    """The largest factor of libjpeg that is not above `factor`.

    Pixels of incomplete blocks are at the end of the stored image. Turning the image could move them to the
    start and shift all other pixels, so an image that is turned must have no incomplete blocks.
    """
    whole = [scale for scale in (8, 4, 2) if turn is UPRIGHT or width % scale == height % scale == 0]
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
    for _, _, strip in strips(image):
        checksum = zlib.crc32(strip.tobytes(), checksum)
    return checksum


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd files, which would be logged, or raised where warnings are errors.

    `warnings.catch_warnings` is not thread-safe. A single filter that stays first is thread-safe.
    """
    with _filter_lock:
        if warnings.filters[:1] != [_PILLOW_FILTER]:
            warnings.filterwarnings("ignore", module=_PILLOW_FILTER[3].pattern)
