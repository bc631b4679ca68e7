"""Walk the parts that an image file declares, before a decoder reads them: count them, choose, leave out."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Literal, NamedTuple

# Any marker except fill bytes, stuffed zeros, and markers without a length: TEM, RST0..7, SOI.
_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
_EOI, _SOS = 0xD9, 0xDA
# SOF0..15 without DHT, JPG and DAC, which share their range; DHP; and SOF55 of JPEG-LS.
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xDE, 0xF7} - {0xC4, 0xC8, 0xCC}

# Ancillary chunks of a PNG that change the pixels or turn them.
_PNG_NEEDED = {b"tRNS", b"eXIf"}

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _WIDTH, _HEIGHT, _PHOTOMETRIC = 254, 255, 256, 257, 262
_STRIP_OFFSETS, _ORIENTATION, _TILE_OFFSETS, _INNER_PICTURES = 273, 274, 324, 330
_PAGE_TAGS = {
    _SUBFILE_TYPE,
    _OLD_SUBFILE_TYPE,
    _WIDTH,
    _HEIGHT,
    _PHOTOMETRIC,
    _ORIENTATION,
    _INNER_PICTURES,
}
# Bytes of each type of integer.
_TIFF_INTEGERS = {3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
# Colour filter array and LinearRaw (TIFF/EP, DNG).
_RAW_PHOTOMETRICS = {32803, 34892}
# After the header: CR2 and IIQ.
_RAW_MARKS = (b"CR\2\0", b"IIII")
# Raw photos have about five pictures. Each directory has about 100 entries.
_TIFF_PICTURE_LIMIT, _TIFF_ENTRY_LIMIT = 32, 512
# A picture has at least so many times the pixels of a thumbnail that is not marked as one.
_TIMES_A_THUMBNAIL = 4


class JpegParts(NamedTuple):
    """Scans and segments of a JPEG. frame: the first frame marker; bits: per channel; both 0 if missing."""

    scans: int
    segments: int
    frame: int
    bits: int
    ended: bool


def read_jpeg(data: bytes, limit: int) -> JpegParts:
    """Walk the markers as libjpeg does, up to `limit` segments."""
    scans = segments = frame = bits = 0
    found = _JPEG_MARKER.search(data, 2)
    while found and segments <= limit and (marker := data[found.end() - 1]) != _EOI:
        at = found.end()
        scans += marker == _SOS
        segments += 1
        if marker in _JPEG_FRAMES and not frame:
            frame, bits = marker, int.from_bytes(data[at + 2 : at + 3])
        found = _JPEG_MARKER.search(data, at + int.from_bytes(data[at : at + 2]))
    return JpegParts(scans, segments, frame, bits, ended=found is not None)


def count_png_chunks(data: bytes, limit: int) -> int:
    """The number of chunks of a PNG, at most `limit`."""
    return sum(1 for _ in islice(_png_chunks(data), limit))


def without_extras(data: bytes) -> bytes:
    """A PNG without what its still image does not need, such as text, profiles and the other frames.

    Nothing is inflated. As in libpng, an ancillary chunk with a bad checksum does not count.
    """
    kept = [data[:8]]
    for name, start, end in _png_chunks(data):
        ancillary = name[:1] >= b"a"
        if not ancillary or (name in _PNG_NEEDED and _has_checksum(data[start:end])):
            kept.append(data[start:end])
        if name == b"IEND":
            break
    return b"".join(kept)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk, with its length and checksum."""
    at = 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], at, end
        at = end


def _has_checksum(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def count_tiff_strips(data: bytes) -> int:
    """Strips or tiles of the first page of a TIFF or BigTIFF; 0 if its directory cannot be read."""
    tiff = _Tiff.of(data)
    entries = tiff.entries(tiff.first())
    return max((count for tag, _, count, _ in entries if tag in (_STRIP_OFFSETS, _TILE_OFFSETS)), default=0)


class TiffPicture(NamedTuple):
    """A TIFF whose first page is its picture. orientation: as in EXIF; 0 if the page itself has it."""

    data: bytes
    is_raw: bool = False
    orientation: int = 0


def find_tiff_picture(data: bytes) -> TiffPicture:
    """The largest of the first page and the pictures inside it; of all pages if these are thumbnails.

    Thumbnails are marked, or have at most a quarter of the pixels of the largest.
    """
    tiff = _Tiff.of(data)
    first = tiff.first()
    pages: dict[int, _Page] = {}
    inside = {first}
    waiting = [first]
    while waiting and len(pages) < _TIFF_PICTURE_LIMIT:
        if (at := waiting.pop(0)) not in pages:
            pages[at], following = tiff.page(at)
            inner = pages[at].get(_INNER_PICTURES, ())
            inside.update(inner if at in inside else ())
            waiting += [*inner, following] if following else inner
    is_raw = any(_RAW_PHOTOMETRICS & {*page.get(_PHOTOMETRIC, ())} for page in pages.values())
    if is_raw or data[8:12] in _RAW_MARKS:
        return TiffPicture(data, is_raw=True)
    areas = {at: _area(page) for at, page in pages.items()}
    largest = max(areas, key=areas.__getitem__)
    largest_inside = max((at for at in areas if at in inside), key=areas.__getitem__)
    if not _is_thumbnail(pages[first]) and areas[largest] < _TIMES_A_THUMBNAIL * areas[largest_inside]:
        largest = largest_inside
    if largest == first:
        return TiffPicture(data)
    by_first = 0 if _ORIENTATION in pages[largest] else _value(pages[first], _ORIENTATION)
    return TiffPicture(tiff.with_first(largest), orientation=by_first)


_Page = dict[int, tuple[int, ...]]


def _value(page: _Page, tag: int) -> int:
    return next(iter(page.get(tag, ())), 0)


def _is_thumbnail(page: _Page) -> bool:
    return bool(_value(page, _SUBFILE_TYPE) & 1) or _value(page, _OLD_SUBFILE_TYPE) == 2


def _area(page: _Page) -> int:
    is_mask = _value(page, _SUBFILE_TYPE) & 4
    return 0 if is_mask else _value(page, _WIDTH) * _value(page, _HEIGHT)


class _Tiff(NamedTuple):
    """Reads the directories of a TIFF or BigTIFF. Beyond the end of the data are zeros."""

    data: bytes
    order: Literal["big", "little"]
    is_big_tiff: bool

    @classmethod
    def of(cls, data: bytes) -> _Tiff:
        return cls(data, "big" if data[:2] == b"MM" else "little", data[2:4] in (b"+\0", b"\0+"))

    def first(self) -> int:
        """Offset of the first directory."""
        return self._integer(8, 8) if self.is_big_tiff else self._integer(4, 4)

    def with_first(self, at: int) -> bytes:
        """The file with another first directory."""
        start, size = (8, 8) if self.is_big_tiff else (4, 4)
        return b"".join((self.data[:start], at.to_bytes(size, self.order), self.data[start + size :]))

    def entries(self, at: int) -> Iterator[tuple[int, int, int, int]]:
        """Tag, type, number of values and place of the values of each entry."""
        layout = (">" if self.order == "big" else "<") + ("HHQ8x" if self.is_big_tiff else "HHL4x")
        size, start = struct.calcsize(layout), at + (8 if self.is_big_tiff else 2)
        end = min(start + self._count(at) * size, len(self.data) - size + 1)
        for place in range(start, end, size):
            tag, kind, count = struct.unpack_from(layout, self.data, place)
            yield tag, kind, count, place + (12 if self.is_big_tiff else 8)

    def page(self, at: int) -> tuple[_Page, int]:
        """Integers of the directory at an offset, and the offset of the next page."""
        page: _Page = {}
        size = 8 if self.is_big_tiff else 4
        for tag, kind, count, place in islice(self.entries(at), _TIFF_ENTRY_LIMIT):
            if tag in _PAGE_TAGS and (width := _TIFF_INTEGERS.get(kind, 0)):
                start = place if count * width <= size else self._integer(place, size)
                places = range(start, start + min(count, _TIFF_PICTURE_LIMIT) * width, width)
                page[tag] = tuple(self._integer(value, width) for value in places)
        head, entry = (8, 20) if self.is_big_tiff else (2, 12)
        return page, self._integer(at + head + self._count(at) * entry, size)

    def _count(self, at: int) -> int:
        return self._integer(at, 8 if self.is_big_tiff else 2)

    def _integer(self, at: int, size: int) -> int:
        return int.from_bytes(self.data[at : at + size], self.order)


def count_items(data: bytes) -> int:
    """Entries of all tables of an AVIF's or HEIC's items (ISO/IEC 14496-12).

    Decoders search a list for each entry, in quadratic time. False numbers do no harm: decoders read as many
    entries as the numbers say.
    """
    top = _boxes(data, 0, len(data))
    return sum(_items(data, start + 4, end) for kind, start, end in top if kind == b"meta")


def is_turned(data: bytes) -> bool:
    """Whether the container rotates or mirrors the primary image of an AVIF or HEIC (ISO/IEC 23008-12)."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            return _is_turned(data, start + 4, end)
    return False


def _is_turned(data: bytes, start: int, end: int) -> bool:
    boxes = {kind: (at, until) for kind, at, until in _boxes(data, start, end)}
    at, _ = boxes.get(b"pitm", (end, end))
    primary = int.from_bytes(data[at + 4 : at + (8 if data[at : at + 1] > b"\0" else 6)])
    kinds: list[bytes] = []
    used: set[int] = set()
    for box, at, until in _boxes(data, *boxes.get(b"iprp", (end, end))):
        if box == b"ipco":
            kinds = [kind for kind, _, _ in _boxes(data, at, until)]
        elif box == b"ipma":
            used.update(number for item, number in _associations(data, at, until) if item == primary)
    return any(number in used and kind in (b"irot", b"imir") for number, kind in enumerate(kinds, 1))


def _associations(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Item and number of each property in an `ipma` box."""
    item_size = 4 if data[at : at + 1] > b"\0" else 2
    size = 2 if data[at + 3 : at + 4] > b"\0" else 1
    items = int.from_bytes(data[at + 4 : at + 8])
    at += 8
    while items and at < end:
        item, items = int.from_bytes(data[at : at + item_size]), items - 1
        at += item_size + 1
        for _ in range(int.from_bytes(data[at - 1 : at])):
            # The highest bit says whether the property is essential.
            yield item, int.from_bytes(data[at : at + size]) & (0x7FFF if size == 2 else 0x7F)
            at += size


def _items(data: bytes, start: int, end: int) -> int:
    count = 0
    for kind, at, until in _boxes(data, start, end):
        version = data[at] if at < until else 0
        if kind == b"iinf":
            count += int.from_bytes(data[at + 4 : at + (8 if version else 6)])
        elif kind == b"iloc":
            count += int.from_bytes(data[at + 6 : at + (10 if version > 1 else 8)])
        elif kind == b"iref":
            count += (until - at) // 2
        elif kind == b"iprp":
            tables = (at for kind, at, _ in _boxes(data, at, until) if kind == b"ipma")
            count += sum(int.from_bytes(data[at + 4 : at + 8]) for at in tables)
    return count


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box between two offsets."""
    while start + 8 <= end:
        size, head = int.from_bytes(data[start : start + 4]), 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16]), 16
        until = end if size == 0 else min(start + size, end)
        if until < start + head:
            return
        yield data[start + 4 : start + 8], start + head, until
        start = until
