"""Count the parts that an image file declares, before a decoder looks up each part."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324


def count_png_chunks(data: bytes, limit: int) -> int:
    """The number of chunks of a PNG, at most `limit`."""
    at, count = 8, 0
    while at < len(data) and count < limit:
        at += 12 + int.from_bytes(data[at : at + 4])
        count += 1
    return count


def count_tiff_strips(data: bytes) -> int:
    """Strips or tiles of the first page of a TIFF or BigTIFF; 0 if its directory cannot be read."""
    order = ">" if data[:2] == b"MM" else "<"
    big = data[2:4] in (b"+\0", b"\0+")
    entries, entry, start = ("Q", "HHQ8x", 8) if big else ("H", "HHL4x", 4)
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "L"), data, start)
        (count,) = struct.unpack_from(order + entries, data, at)
        at += struct.calcsize(order + entries)
        size, largest = struct.calcsize(order + entry), 0
        for place in range(at, min(at + count * size, len(data) - size + 1), size):
            tag, _, values = struct.unpack_from(order + entry, data, place)
            if tag in (_STRIP_OFFSETS, _TILE_OFFSETS):
                largest = max(largest, values)
        return largest
    except (struct.error, OverflowError):
        return 0


def count_items(data: bytes) -> int:
    """Entries of all tables of an AVIF's or HEIC's items (ISO/IEC 14496-12).

    Decoders search a list for each entry, in quadratic time. False numbers do no harm: decoders read as many
    entries as the numbers say.
    """
    top = _boxes(data, 0, len(data))
    return sum(_items(data, start + 4, end) for kind, start, end in top if kind == b"meta")


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
