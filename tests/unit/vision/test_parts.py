from __future__ import annotations

import struct

import pytest

from service.vision.parts import (
    count_items,
    count_png_chunks,
    count_tiff_strips,
    find_tiff_picture,
    is_turned,
    read_jpeg,
    without_extras,
)
from tests.hostile.containers import box
from tests.hostile.originals import originals, png_chunk


def test_valid_files_have_few_parts() -> None:
    files = originals()
    assert count_tiff_strips(files["tiff-strips"]) == 6
    assert count_tiff_strips(files["tiff-tiles"]) == 36
    assert count_tiff_strips(files["tiff-big"]) == 3
    assert count_png_chunks(files["png-rgb"], 1000) == 4
    assert [count_items(files[name]) for name in ("avif-still", "heic-still")] == [3, 3]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_strips_are_counted_in_every_kind_of_tiff(order: str, big: bool) -> None:
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = struct.pack(order + "HHHQ", 43, 8, 0, 16)
        directory = struct.pack(order + "QHHQQ", 1, 324, 4, 1_000_000, 16)
    else:
        head = struct.pack(order + "HL", 42, 8)
        directory = struct.pack(order + "HHHLL", 1, 273, 4, 1_000_000, 16)
    assert count_tiff_strips(mark + head + directory) == 1_000_000


def test_counting_chunks_stops_at_the_limit() -> None:
    assert count_png_chunks(b"\x89PNG\r\n\x1a\n" + bytes(12 * 1000), 10) == 10


def test_items_of_all_tables_are_added_up() -> None:
    tables = box(b"iinf", bytes(4), b"\0\7") + box(b"iloc", b"\2\0\0\0\x44\0", struct.pack(">I", 100_000))
    tables += box(b"iprp", box(b"ipco"), box(b"ipma", bytes(4), struct.pack(">I", 50)))
    meta = box(b"meta", bytes(4), tables)
    assert count_items(box(b"ftyp", b"avif") + meta) == 7 + 100_000 + 50
    # The length of a box may have 64 bits. A length of 0 means up to the end of the file.
    long = struct.pack(">I4sQ", 1, b"meta", 8 + len(meta)) + meta[8:]
    assert count_items(box(b"ftyp", b"avif") + long) == 100_057
    assert count_items(box(b"ftyp", b"avif") + bytes(4) + meta[4:]) == 100_057


def test_reading_a_jpeg_stops_at_its_end() -> None:
    file = originals()["jpeg-baseline"]
    jpeg = read_jpeg(file + file, 100)
    assert (jpeg.scans, jpeg.frame, jpeg.bits, jpeg.ended) == (1, 0xC0, 8, True)
    assert read_jpeg(file[:-2], 100) == jpeg._replace(ended=False)
    assert read_jpeg(b"\xff\xd8" + b"\xff\xe5\0\2" * 1000, 10).segments == 11


def test_a_png_keeps_what_its_still_image_needs() -> None:
    end = png_chunk(b"IEND", b"")
    needed = [png_chunk(kind, b"1") for kind in (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IDAT")]
    extras = [
        png_chunk(kind, b"2") for kind in (b"tEXt", b"iCCP", b"gAMA", b"acTL", b"fcTL", b"fdAT", b"prVt")
    ]
    head = b"\x89PNG\r\n\x1a\n"
    mixed = b"".join(chunk for pair in zip(extras, [b"", *needed], strict=True) for chunk in pair)
    assert without_extras(head + mixed + end + b"more") == head + b"".join(needed) + end
    # What is cut short stays cut short.
    assert without_extras(head + needed[0][:-3]) == head + needed[0][:-3]


def ipma(*items: tuple[int, list[int]], wide: bool = False) -> bytes:
    """Properties of items by their numbers, with 8 or 16 bits for each number and 16 or 32 for each item."""
    entries = b"".join(
        struct.pack(">IB" if wide else ">HB", item, len(numbers))
        + b"".join(struct.pack(">H" if wide else ">B", number) for number in numbers)
        for item, numbers in items
    )
    return box(b"ipma", bytes((wide, 0, 0, wide)), struct.pack(">I", len(items)), entries)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("turn", [b"irot", b"imir"])
def test_only_a_rotation_of_the_primary_item_turns_it(turn: bytes, wide: bool) -> None:
    def file(*items: tuple[int, list[int]]) -> bytes:
        primary = box(b"pitm", bytes((wide, 0, 0, 0)), struct.pack(">I" if wide else ">H", 7))
        properties = box(b"ipco", box(b"ispe", bytes(12)), box(turn, b"\1"))
        meta = box(b"meta", bytes(4), primary, box(b"iprp", properties, ipma(*items, wide=wide)))
        return box(b"ftyp", b"heic") + meta

    essential = 0x8002 if wide else 0x82
    assert is_turned(file((6, [1]), (7, [1, 2])))
    assert is_turned(file((6, [1]), (7, [1, essential])))
    assert not is_turned(file((6, [1, 2]), (7, [1])))
    assert not is_turned(file((7, [0, 3])))
    assert not is_turned(file())


def test_the_search_for_pictures_of_a_tiff_is_bounded() -> None:
    def directory(at: int, *tags: tuple[int, int, int]) -> bytes:
        entries = b"".join(struct.pack("<HHLL", tag, 4, count, value) for tag, count, value in tags)
        return struct.pack("<H", len(tags)) + entries + struct.pack("<L", at)

    # Each directory is a thumbnail, says that it contains itself, and is followed by the next one.
    size = len(directory(0, (254, 1, 1), (330, 1, 0)))
    chain = b"".join(
        directory(8 + (n + 1) * size, (254, 1, 1), (330, 1, 8 + n * size)) for n in range(10_000)
    )
    file = b"II*\0\x08\0\0\0" + chain
    assert find_tiff_picture(file).data == file
    many = directory(0, (254, 1, 1), (256, 1, 9), (257, 1, 9), (330, 0xFFFFFFFF, 8))
    assert find_tiff_picture(b"II*\0\x08\0\0\0" + many).orientation == 0


@pytest.mark.parametrize("data", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II+\0" + b"\xff" * 40])
def test_unreadable_data_has_no_parts(data: bytes) -> None:
    assert count_tiff_strips(data) == 0
    assert count_items(data) == 0
    assert find_tiff_picture(data) == (data, False, 0)
    assert not is_turned(data)
