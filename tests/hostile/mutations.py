"""Damage done to sound images: cut short, bits flipped, pieces moved, header fields set to extremes."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

from tests.hostile.originals import originals

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
FLIPS, SPLICES, FIELDS = 40, 24, 40


def truncated(file: bytes) -> Iterator[bytes]:
    """At every 1 %."""
    for percent in range(1, 100):
        yield file[: len(file) * percent // 100]


def flipped(file: bytes, seed: random.Random) -> Iterator[bytes]:
    for _ in range(FLIPS):
        damaged = bytearray(file)
        for _ in range(seed.choice((1, 2, 8, 64))):
            damaged[seed.randrange(len(file))] ^= 1 << seed.randrange(8)
        yield bytes(damaged)


def spliced(file: bytes, seed: random.Random) -> Iterator[bytes]:
    """A piece left out, doubled many times, moved, or taken from an image of another format."""
    others = list(originals().values())
    for _ in range(SPLICES):
        start, end = sorted(seed.randrange(len(file)) for _ in range(2))
        end = min(end, start + 4096)
        piece = file[start:end]
        yield seed.choice(
            (
                file[:start] + file[end:],
                file[:end] + piece * seed.choice((1, 20)) + file[end:],
                file[end:] + piece + file[:start],
                file[:start] + seed.choice(others)[: end - start] + file[end:],
                file[:start] + seed.randbytes(end - start) + file[end:],
            )
        )


def with_extreme_fields(file: bytes, seed: random.Random) -> Iterator[bytes]:
    """A number of the header, or of the directory at the end of a TIFF, is as small or large as can be."""
    for _ in range(FIELDS):
        damaged = bytearray(file)
        for _ in range(seed.choice((1, 1, 2, 4))):
            format_ = seed.choice(("B", "<H", ">H", "<L", ">L"))
            size = struct.calcsize(format_)
            near_end = file[:2] in (b"II", b"MM") and seed.random() < 0.5
            at = (len(file) - 400 if near_end else 0) + seed.randrange(400 - size)
            value = seed.choice(_EXTREMES) % (1 << 8 * size)
            damaged[at : at + size] = struct.pack(format_, value)
        yield _png_mended(bytes(damaged))


def _png_mended(file: bytes) -> bytes:
    """Checksums made right: else Pillow looks no further."""
    if not file.startswith(b"\x89PNG"):
        return file
    mended, at = bytearray(file), 8
    while at + 12 <= len(file):
        length = int.from_bytes(file[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(file):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(file[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def damaged_images() -> Iterator[tuple[str, bytes]]:
    """All of the damage, as (kind of damage, file); the same on every run."""
    for name, file in originals().items():
        seed = random.Random(name)
        for kind, files in {
            "truncated": truncated(file),
            "flipped": flipped(file, seed),
            "spliced": spliced(file, seed),
            "extreme fields": with_extreme_fields(file, seed),
        }.items():
            for damaged in files:
                yield f"{name.partition('-')[0]} {kind}", damaged
