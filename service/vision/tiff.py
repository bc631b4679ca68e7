"""TIFF files. A TIFF can hold anything; one that Pillow does not decode right is refused by what it holds."""

from __future__ import annotations

from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    ImageFileDirectory_v2,
    TiffImageFile,
)

from service.core.errors import UnsupportedMediaType

# Pillow's own reader confuses the bytes of planes of 16 bits, and ignores the subsampling of YCbCr.
TiffImagePlugin.READ_LIBTIFF = True
# libtiff gives values in the byte order of the machine (N), which Pillow does not expect here.
_NATIVE = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}
# None, CCITT, LZW, JPEG, Deflate, PackBits, LZMA, Zstandard: what libtiff of Pillow's wheels decodes right.
_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000}
_COMPRESSION_NAMES = {
    9: "JBIG",
    10: "JBIG",
    32771: "CCITT RLE",
    32809: "ThunderScan",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34933: "PNG",
    34934: "JPEG XR",
    22610: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_COLOURS = {
    0: "inverted grey",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
    32844: "LogL",
    32845: "LogLuv",
}
_UNSIGNED, _SIGNED = 1, 2
_FORMS = {_SIGNED: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}


class Tiff(TiffImageFile):
    """The first page of a TIFF. Raises `UnsupportedMediaType` for what is not decoded right."""

    planar: bool
    """Whether each channel has a plane of its own."""

    def _open(self) -> None:
        assert self.fp is not None
        if self.fp.getvalue()[:4] == b"MM\0+":  # type: ignore[attr-defined]
            raise UnsupportedMediaType("big-endian BigTIFF images are not supported; save the image as TIFF")
        try:
            super()._open()
        except (KeyError, SyntaxError):
            tags = getattr(self, "tag_v2", {})
            if IMAGEWIDTH in tags and PHOTOMETRIC_INTERPRETATION in tags:
                raise _unsupported(self.tag_v2) from None
            raise
        self.planar = self.tag_v2.get(PLANAR_CONFIGURATION) == 2 and self.tag_v2.get(SAMPLESPERPIXEL, 1) > 1
        if self._is_misread():
            raise _unsupported(self.tag_v2)
        tile = self.tile[0]
        assert isinstance(tile.args, tuple)
        rawmode, *others = tile.args
        self.tile = [tile._replace(args=(_NATIVE.get(rawmode, rawmode), *others))]

    def _is_misread(self) -> bool:
        """Whether Pillow opens this image but decodes it to wrong pixels."""
        tags = self.tag_v2
        form = max(tags.get(SAMPLEFORMAT, (_UNSIGNED,)))
        return (
            tags.get(COMPRESSION, 1) not in _COMPRESSIONS
            or (tags.get(PHOTOMETRIC_INTERPRETATION, 0) == 0 and self.mode in ("I;16", "F"))
            or (form == _SIGNED and self.mode == "L")
            or (form == _UNSIGNED and self.mode == "I")
            or (self.planar and self.mode not in ("RGB", "RGBA", "CMYK"))
        )


def _unsupported(tags: ImageFileDirectory_v2) -> UnsupportedMediaType:
    """Only numbers of the file get into the text: `int` refuses all else."""
    compression = int(tags.get(COMPRESSION, 1))
    if compression not in _COMPRESSIONS:
        name = _COMPRESSION_NAMES.get(compression, f"type {compression}")
        return UnsupportedMediaType(
            f"TIFF images with {name} compression are not supported; save the image with LZW or Deflate"
        )
    colour, form = int(tags[PHOTOMETRIC_INTERPRETATION]), max(tags.get(SAMPLEFORMAT, (_UNSIGNED,)))
    bits, samples = int(max(tags.get(BITSPERSAMPLE, (1,)))), int(tags.get(SAMPLESPERPIXEL, 1))
    name = _FORMS.get(form, "") + _COLOURS.get(colour, f"colour type {colour}")
    planes = " in separate planes" if tags.get(PLANAR_CONFIGURATION) == 2 else ""
    return UnsupportedMediaType(
        f"TIFF images of {samples} x {bits}-bit {name}{planes} are not supported; save the image as 8-bit RGB"
    )
