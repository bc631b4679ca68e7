"""Small files that make a decoder use many pixels, much memory or much time. Most are not valid images."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.hostile.containers import Coded, tiled, with_size
from tests.hostile.originals import encode, originals, png_chunk

_MB = 1 << 20


def _png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")


def _zeros(megabytes: int) -> bytes:
    """zlib data of so many megabytes of zeros, a thousandth as large: one compressed megabyte, repeated."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(_MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    adler = (megabytes * _MB % 65521) << 16 | 1
    return b"\x78\xda" + block * megabytes + b"\x03\0" + struct.pack(">I", adler)


def _idat(data: bytes = b"") -> bytes:
    return png_chunk(b"IDAT", data or zlib.compress(bytes(64 * 193)))


def _png_frames(count: int) -> bytes:
    pixels = zlib.compress(bytes(64 * 193))
    frames = [png_chunk(b"acTL", struct.pack(">II", count, 0))]
    control = struct.pack(">IIIIHHBB", 64, 64, 0, 0, 1, 10, 0, 0)
    frames.append(png_chunk(b"fcTL", struct.pack(">I", 0) + control) + png_chunk(b"IDAT", pixels))
    for number in range(1, count):
        frames.append(png_chunk(b"fcTL", struct.pack(">I", 2 * number - 1) + control))
        frames.append(png_chunk(b"fdAT", struct.pack(">I", 2 * number) + pixels))
    return _png(64, 64, *frames)


def _gif(width: int, height: int, frame: tuple[int, int, int, int], data: bytes, frames: int = 1) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    image = b"!\xf9\x04\x04\x01\0\0\0," + struct.pack("<HHHHB", *frame, 0) + b"\x02" + data
    return screen + image * frames + b";"


_GIF_DATA = b"\x02\x4c\x01\0"


def _webp(width: int, height: int, frames: int = 1, side: int = 16) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    still = encode(Image.new("RGB", (side, side), "teal"), "WEBP")[12:]
    frame = bytes(6) + (side - 1).to_bytes(3, "little") * 2 + bytes(4) + still
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += (b"ANMF" + struct.pack("<I", len(frame)) + frame) * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


Tags = dict[int, tuple[int, int, bytes]]


def _number(value: int) -> tuple[int, int, bytes]:
    return 4, 1, struct.pack("<L", value & 0xFFFFFFFF)


def _directory(tags: Tags, next_offset: int) -> bytes:
    entries = b"".join(struct.pack("<HHL", tag, *tags[tag][:2]) + tags[tag][2] for tag in sorted(tags))
    return struct.pack("<H", len(tags) & 0xFFFF) + entries + struct.pack("<L", next_offset)


def _tiff(data: bytes, next_offset: int = 0, **changed: int | tuple[int, int, bytes]) -> bytes:
    """A TIFF of one strip. Its directory follows the data. `t256=7` sets tag 256 to 7."""
    tags: Tags = {256: _number(64), 257: _number(64), 258: _number(8), 259: _number(1), 262: _number(1)}
    tags |= {273: _number(8), 277: _number(1), 278: _number(64), 279: _number(len(data))}
    for name, value in changed.items():
        tags[int(name[1:])] = value if isinstance(value, tuple) else _number(value)
    return b"II*\0" + struct.pack("<L", 8 + len(data)) + data + _directory(tags, next_offset)


def _jpeg_with(segments: bytes, file: bytes | None = None) -> bytes:
    file = file or originals()["jpeg-baseline"]
    return file[:2] + segments + file[2:]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(body)) + body


def _exif(directory: bytes) -> bytes:
    return _segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + directory)


def _scans(side: int, scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan `scans` times."""
    file = encode(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    return file[:-2] + file[file.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


def _scans_in_a_tiff(side: int, scans: int) -> bytes:
    return _tiff(_scans(side, scans), t256=side, t257=side, t278=side, t259=7)


def _noise(side: int) -> Image.Image:
    tile = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    return Image.fromarray(np.tile(tile, (side // 512 + 1, side // 512 + 1, 1))[:side, :side])


def _tiled(original: str, side: int, **options: object) -> bytes:
    return tiled(Coded.of(originals()[original]), tile=(side, side), **options)  # type: ignore[arg-type]


def _thumbnails(pages: int) -> bytes:
    """A TIFF of thumbnails, each of which contains all the others and itself."""
    size = 2 + 4 * 12 + 4
    at = 8 + 4 * pages
    tags = {254: _number(1), 256: _number(64), 257: _number(64), 330: (4, pages, _number(8)[2])}
    offsets = [at + page * size for page in range(pages)]
    directories = b"".join(_directory(tags, offset + size) for offset in offsets)
    return b"II*\0" + struct.pack("<L", at) + struct.pack(f"<{pages}L", *offsets) + directories


def _multi_picture(pictures: int) -> bytes:
    file, out = originals()["mpo-two"], io.BytesIO()
    at = file.index(b"\x01\xb0\x04\x00")  # the number of pictures in its index
    out.write(file[: at + 8] + struct.pack("<L", pictures) + file[at + 12 :])
    return out.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "png size": lambda: _png(60_000, 60_000, _idat()),
    "png inflates to 1 GB": lambda: _png(64, 64, _idat(_zeros(1024))),
    "png of 49 megapixels in 150 kB": lambda: _png(7000, 7000, _idat(_zeros(141))),
    "png of 49 megapixels cut short": lambda: _png(7000, 7000, _idat(_zeros(70))),
    "png 16 bit of 49 megapixels": lambda: _png(7000, 7000, _idat(_zeros(281)), depth=16),
    "png text inflates to 1 GB": lambda: _png(64, 64, png_chunk(b"zTXt", b"a\0\0" + _zeros(1024)), _idat()),
    "png texts inflate to 1 GB": lambda: _png(
        64, 64, png_chunk(b"zTXt", b"a\0\0" + _zeros(1)) * 1024, _idat()
    ),
    "png international text inflates": lambda: _png(
        64, 64, png_chunk(b"iTXt", b"a\0\1\0\0\0" + _zeros(512)), _idat()
    ),
    "png text of 19 MB": lambda: _png(64, 64, png_chunk(b"tEXt", b"a\0" + b"x" * 19_000_000), _idat()),
    "png 1,000,000 texts": lambda: _png(64, 64, png_chunk(b"tEXt", b"a\0b") * 1_000_000, _idat()),
    "png profile inflates to 1 GB": lambda: _png(
        64, 64, png_chunk(b"iCCP", b"a\0\0" + _zeros(1024)), _idat()
    ),
    "png 500,000 empty data chunks": lambda: _png(64, 64, png_chunk(b"IDAT", b"") * 500_000, _idat()),
    "png 10,000 frames": lambda: _png_frames(10_000),
    "png palette too long": lambda: _png(
        64, 64, png_chunk(b"PLTE", bytes(90_000)), _idat(), depth=8, colour=3
    ),
    "gif canvas": lambda: _gif(60_000, 60_000, (0, 0, 60_000, 60_000), _GIF_DATA),
    "gif canvas of 49 megapixels, frame of one": lambda: _gif(7000, 7000, (0, 0, 1, 1), _GIF_DATA),
    "gif frame beyond its canvas": lambda: _gif(8, 8, (60_000, 60_000, 65_535, 65_535), _GIF_DATA),
    "gif 10,000 frames": lambda: _gif(640, 480, (0, 0, 640, 480), _GIF_DATA, 10_000),
    "gif comments of 19 MB": lambda: (
        b"GIF89a\x08\0\x08\0\0\0\0" + b"!\xfe" + (b"\xff" + b"x" * 255) * 74_000 + b"\0;"
    ),
    "gif 300,000 extensions": lambda: b"GIF89a\x08\0\x08\0\0\0\0" + b"!\xfe\x01x\0" * 300_000,
    "webp canvas": lambda: _webp(16_000, 16_000),
    "webp canvas of 49 megapixels, frame of 16": lambda: _webp(7000, 7000),
    "webp canvas smaller than its frame": lambda: _webp(4, 4),
    "webp 10,000 frames": lambda: _webp(64, 64, 10_000),
    "bmp size": lambda: (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, 60_000, -60_000, 1, 24, *(0,) * 6)
    ),
    "bmp of 49 megapixels without pixels": lambda: (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, 7000, 7000, 1, 24, *(0,) * 6)
    ),
    "bmp run lengths of nothing": lambda: (
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 1078, 40, 7000, 7000, 1, 8, 1, 0, 0, 0, 256, 0)
        + bytes(1024)
        + b"\0\0" * 1_000_000
    ),
    "tiff size": lambda: _tiff(b"\0" * 64, t256=60_000, t257=60_000),
    "tiff tile of 64 megapixels": lambda: _tiff(
        zlib.compress(bytes(1000)), t259=8, t322=8000, t323=8000, t324=8, t325=50
    ),
    "tiff strip of 1 GB": lambda: _tiff(_zeros(1024), t259=8),
    "tiff of 49 megapixels deflated": lambda: _tiff(_zeros(47), t256=7000, t257=7000, t278=7000, t259=8),
    "tiff directory that follows itself": lambda: _tiff(bytes(4096), next_offset=8 + 4096),
    "tiff directory inside itself": lambda: _tiff(
        bytes(4096), t330=8 + 4096, t34665=8 + 4096, t34853=8 + 4096, t40965=8 + 4096
    ),
    "tiff 10,000 thumbnails": lambda: _thumbnails(10_000),
    "tiff 4 billion pictures inside": lambda: _tiff(
        bytes(4096), t254=1, t330=(4, 0xFFFFFFFF, struct.pack("<L", 8 + 4096))
    ),
    "tiff 4 billion values": lambda: _tiff(bytes(4096), t273=(4, 0xFFFFFFFF, bytes(4))),
    "tiff 4 billion rationals": lambda: _tiff(bytes(4096), t282=(5, 0xFFFFFFFF, b"\x08\0\0\0")),
    "tiff 2,000,000 strips": lambda: _tiff(
        bytes(8_000_000), t257=2_000_000, t278=1, t273=(4, 2_000_000, b"\x08\0\0\0"), t256=24
    ),
    "tiff 65,535 tags": lambda: (
        b"II*\0\x08\0\0\0\xff\xff"
        + b"".join(struct.pack("<HHLL", t, 4, 1, 1) for t in range(65_535))
        + bytes(4)
    ),
    "tiff 65,535 samples": lambda: _tiff(bytes(4096), t277=65_535),
    "tiff rows of one pixel": lambda: _tiff(bytes(4096), t256=1, t257=49_000_000, t278=1),
    "tiff jpeg larger than its tiff": lambda: _tiff(
        encode(Image.new("L", (6000, 6000)), "JPEG"), t259=7, t256=64, t257=64
    ),
    "tiff jpeg of 2,000 scans": lambda: _scans_in_a_tiff(2000, 2000),
    "jpeg size": lambda: _sized_jpeg(60_000, 60_000),
    "jpeg of 49 megapixels without pixels": lambda: _sized_jpeg(7000, 7000),
    "jpeg of 4 megapixels without pixels and end": lambda: _sized_jpeg(2000, 2000)[:-2],
    "jpeg of 4 megapixels without end": lambda: encode(_noise(2000), "JPEG", quality=99)[:-2],
    "jpeg 100,000 segments": lambda: _jpeg_with(_segment(0xE5, b"") * 100_000),
    "jpeg 4,000 segments": lambda: _jpeg_with(_segment(0xE5, b"x" * 4000) * 4000),
    "jpeg 4,000 tables": lambda: _jpeg_with(_segment(0xDB, b"\0" + b"\1" * 64) * 4000),
    "jpeg profile of 16 MB": lambda: _jpeg_with(
        b"".join(
            _segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 255)) + b"x" * 65_000)
            for number in range(1, 256)
        )
    ),
    "jpeg profile of the same part 255 times": lambda: _jpeg_with(
        _segment(0xE2, b"ICC_PROFILE\0\1\xff" + b"x" * 65_000) * 255
    ),
    "jpeg 10,000 scans": lambda: _scans(2000, 10_000),
    "jpeg 400 scans of 4 megapixels": lambda: _scans(2000, 350),
    "exif directory that follows itself": lambda: _jpeg_with(_exif(_directory({274: _number(6)}, 8))),
    "exif directory inside itself": lambda: _jpeg_with(
        _exif(_directory({274: _number(6), 34665: _number(8), 34853: _number(8), 40965: _number(8)}, 0))
    ),
    "exif 5,000 tags": lambda: _jpeg_with(_exif(_directory({n: _number(8) for n in range(5000)}, 0))),
    "exif 250 times": lambda: _jpeg_with(_exif(_directory({n: _number(8) for n in range(5000)}, 0)) * 250),
    "exif 4 billion values": lambda: _jpeg_with(_exif(_directory({274: (3, 0xFFFFFFFF, b"\x08\0\0\0")}, 0))),
    "exif orientation of a text": lambda: _jpeg_with(_exif(_directory({274: (2, 4, b"six\0")}, 0))),
    "mpo of 10,000,000 pictures": lambda: _multi_picture(10_000_000),
    "avif size": lambda: with_size(originals()["avif-still"], 60_000, 60_000),
    "avif size too small": lambda: with_size(originals()["avif-still"], 1, 1),
    "avif size too large": lambda: with_size(originals()["avif-still"], 7000, 7000),
    "avif of 16 megapixels that says 100 x 100": lambda: with_size(
        encode(Image.new("RGB", (4000, 4000), "teal"), "AVIF", speed=10), 100, 100
    ),
    "avif 40,000 tiles": lambda: _tiled(
        "avif-still", 96, claimed=(100, 100), output=(19_200, 19_200), rows=200, columns=200
    ),
    "avif 900 tiles": lambda: _tiled(
        "avif-still", 96, claimed=(2880, 2880), output=(2880, 2880), rows=30, columns=30
    ),
    "avif tiling larger than it says": lambda: _tiled(
        "avif-still", 96, claimed=(100, 100), output=(60_000, 60_000), rows=3, columns=3
    ),
    "avif tiling of itself": lambda: _tiled(
        "avif-still", 96, claimed=(192, 192), output=(192, 192), rows=2, columns=2, references=[1] * 4
    ),
    "avif the same tile 60,000 times": lambda: _tiled(
        "avif-still",
        96,
        claimed=(7000, 7000),
        output=(7000, 7000),
        rows=240,
        columns=250,
        references=[2] * 60_000,
        tiles=1,
    ),
    "heic size": lambda: with_size(originals()["heic-still"], 60_000, 60_000),
    "heic size too small": lambda: with_size(originals()["heic-still"], 1, 1),
    "heic size too large": lambda: with_size(originals()["heic-still"], 7000, 7000),
    "heic 40,000 tiles": lambda: _tiled(
        "heic-still", 96, claimed=(100, 100), output=(19_200, 19_200), rows=200, columns=200
    ),
    "heic tiling of itself": lambda: _tiled(
        "heic-still", 96, claimed=(192, 192), output=(192, 192), rows=2, columns=2, references=[1] * 4
    ),
    "heic tiling larger than it says": lambda: _tiled(
        "heic-still", 96, claimed=(100, 100), output=(60_000, 60_000), rows=3, columns=3
    ),
}

# Valid or nearly valid images that may take long to decode. The decode budget is for them.
SLOW: dict[str, Callable[[], bytes]] = {
    "jpeg of 36 megapixels, 30 scans": lambda: _scans(6000, 25),
    "tiff jpeg of 36 megapixels, 90 scans": lambda: _scans_in_a_tiff(6000, 80),
    "webp of 16 megapixels of noise": lambda: encode(_noise(4000), "WEBP", method=0),
    "avif of 4 megapixels of noise": lambda: encode(_noise(2000), "AVIF", speed=10),
    "tiff of 6 megapixels of noise": lambda: encode(_noise(2400), "TIFF", compression="tiff_lzw"),
}


def _sized_jpeg(width: int, height: int) -> bytes:
    file = originals()["jpeg-progressive"]
    at = file.index(b"\xff\xc2") + 5
    return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]
