"""Damages valid images: cuts them, flips bits, moves pieces, and sets header fields to extreme values."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

from tests.hostile.originals import originals

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
FLIPS, SPLICES, FIELDS = 40, 24, 40


def truncated(file: bytes) -> Iterator[bytes]:
    """The file, cut at every 1 % of its length."""
    for percent in range(1, 100):
        yield file[: len(file) * percent // 100]


def flipped(file: bytes, rng: random.Random) -> Iterator[bytes]:
    for _ in range(FLIPS):
        damaged = bytearray(file)
        for _ in range(rng.choice((1, 2, 8, 64))):
            damaged[rng.randrange(len(file))] ^= 1 << rng.randrange(8)
        yield bytes(damaged)


def spliced(file: bytes, rng: random.Random) -> Iterator[bytes]:
    """A piece is removed, repeated, moved, or replaced by bytes of another image or random bytes."""
    others = list(originals().values())
    for _ in range(SPLICES):
        start, end = sorted(rng.randrange(len(file)) for _ in range(2))
        end = min(end, start + 4096)
        piece = file[start:end]
        yield rng.choice(
            (
                file[:start] + file[end:],
                file[:end] + piece * rng.choice((1, 20)) + file[end:],
                file[end:] + piece + file[:start],
                file[:start] + rng.choice(others)[: end - start] + file[end:],
                file[:start] + rng.randbytes(end - start) + file[end:],
            )
        )


def with_extreme_fields(file: bytes, rng: random.Random) -> Iterator[bytes]:
    """Numbers of the header, or of the directory at the end of a TIFF, have extreme values."""
    for _ in range(FIELDS):
        damaged = bytearray(file)
        for _ in range(rng.choice((1, 1, 2, 4))):
            format_ = rng.choice(("B", "<H", ">H", "<L", ">L"))
            size = struct.calcsize(format_)
            near_end = file[:2] in (b"II", b"MM") and rng.random() < 0.5
            at = (len(file) - 400 if near_end else 0) + rng.randrange(400 - size)
            value = rng.choice(_EXTREMES) % (1 << 8 * size)
            damaged[at : at + size] = struct.pack(format_, value)
        yield _with_png_checksums(bytes(damaged))


def _with_png_checksums(file: bytes) -> bytes:
    """The file with correct checksums if it is a PNG. Pillow stops at a wrong checksum."""
    if not file.startswith(b"\x89PNG"):
        return file
    fixed, at = bytearray(file), 8
    while at + 12 <= len(file):
        length = int.from_bytes(file[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(file):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(file[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def damaged_images() -> Iterator[tuple[str, bytes]]:
    """All damaged images, as (format and kind of damage, file). Every run gives the same files."""
    for name, file in originals().items():
        rng = random.Random(name)
        for kind, files in {
            "truncated": truncated(file),
            "flipped": flipped(file, rng),
            "spliced": spliced(file, rng),
            "extreme fields": with_extreme_fields(file, rng),
        }.items():
            for damaged in files:
                yield f"{name.partition('-')[0]} {kind}", damaged
