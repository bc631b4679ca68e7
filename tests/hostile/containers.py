"""Writes AVIF and HEIC files with any values in their boxes (ISO/IEC 14496-12 and 23008-12)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full_box(kind: bytes, version: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24), *parts)


@dataclass(frozen=True)
class Coded:
    """The coded picture of a valid file, with the box that configures its decoder."""

    brand: bytes
    item: bytes
    configuration: bytes
    data: bytes

    @classmethod
    def of(cls, file: bytes) -> Coded:
        avif = b"av1C" in file
        at = file.index(b"av1C" if avif else b"hvcC") - 4
        configuration = file[at : at + int.from_bytes(file[at : at + 4])]
        mdat = file.rindex(b"mdat")
        data = file[mdat + 4 : mdat - 4 + int.from_bytes(file[mdat - 4 : mdat])]
        return cls(b"avif" if avif else b"heic", b"av01" if avif else b"hvc1", configuration, data)


def tiled(
    coded: Coded,
    *,
    tile: tuple[int, int],
    claimed: tuple[int, int],
    output: tuple[int, int],
    rows: int,
    columns: int,
    references: Sequence[int] | None = None,
    tiles: int | None = None,
) -> bytes:
    """A picture whose tiles are copies of one coded picture. They share its bytes, so the file stays small.

    claimed: the size in the property of the picture.
    output: the size in the tiling.
    references: the item number of each tile. Item 1 is the tiling. By default, the tiles are items 2, 3, ...
    tiles: the number of items that are tiles, by default one for each place of the tiling.
    """
    count = rows * columns if tiles is None else tiles
    referenced = range(2, 2 + rows * columns) if references is None else references
    grid = struct.pack(">BBBBII", 0, 1, (rows - 1) & 255, (columns - 1) & 255, *output)
    items = [full_box(b"infe", 2, struct.pack(">HH", 1, 0), b"grid\0")]
    items += [full_box(b"infe", 2, struct.pack(">HH", 2 + i, 0), coded.item, b"\0") for i in range(count)]
    properties = box(
        b"ipco",
        full_box(b"ispe", 0, struct.pack(">II", *claimed)),
        full_box(b"ispe", 0, struct.pack(">II", *tile)),
        coded.configuration,
        full_box(b"pixi", 0, b"\3\x08\x08\x08"),
    )
    associations = struct.pack(">HBBB", 1, 2, 1, 4)
    associations += b"".join(struct.pack(">HBBBB", 2 + i, 3, 2, 0x83, 4) for i in range(count))

    def file(data_at: int) -> bytes:
        locations = struct.pack(">HHHHII", 1, 0, 0, 1, data_at, len(grid))
        locations += b"".join(
            struct.pack(">HHHHII", 2 + i, 0, 0, 1, data_at + len(grid), len(coded.data)) for i in range(count)
        )
        meta = full_box(
            b"meta",
            0,
            full_box(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", 0, struct.pack(">H", 1)),
            full_box(b"iloc", 1, b"\x44\0", struct.pack(">H", 1 + count), locations),
            full_box(b"iinf", 0, struct.pack(">H", 1 + count), *items),
            full_box(
                b"iref",
                0,
                box(
                    b"dimg",
                    struct.pack(">HH", 1, len(referenced) & 0xFFFF),
                    *(struct.pack(">H", i) for i in referenced),
                ),
            ),
            box(b"iprp", properties, full_box(b"ipma", 0, struct.pack(">I", 1 + count), associations)),
        )
        brands = box(b"ftyp", coded.brand, bytes(4), b"mif1miaf", coded.brand)
        return brands + meta + box(b"mdat", grid, coded.data)

    return file(file(0).rindex(b"mdat") + 4)


def with_size(file: bytes, width: int, height: int) -> bytes:
    """The file with this size in each of its size properties."""
    changed, at = file, file.find(b"ispe")
    while at >= 0:
        changed = changed[: at + 8] + struct.pack(">II", width, height) + changed[at + 16 :]
        at = file.find(b"ispe", at + 4)
    return changed
