from __future__ import annotations

import struct

import pytest

from service.vision.parts import count_items, count_png_chunks, count_tiff_strips
from tests.hostile.containers import box
from tests.hostile.originals import originals


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


@pytest.mark.parametrize("data", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II+\0" + b"\xff" * 40])
def test_unreadable_data_has_no_parts(data: bytes) -> None:
    assert count_tiff_strips(data) == 0
    assert count_items(data) == 0
