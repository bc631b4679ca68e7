"""Small grey pictures in little space: their values with 6 bits, on sheets of lossless WebP."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from training.datasets.faces import DECODING_THREADS, Bytes

LEVELS = 63
SIDE = 16  # pictures along each side of a sheet; larger sheets compress less


def to_sheets(pictures: Bytes) -> list[Bytes]:
    """uint8 [N,S,S] grey -> the bytes of each sheet. A value changes by 2 at most."""
    side = pictures.shape[1]

    def encoded(start: int) -> Bytes:
        some = pictures[start : start + SIDE**2].astype(np.uint16)
        sheet = np.zeros((SIDE**2, side, side), np.uint8)
        sheet[: len(some)] = (some * LEVELS + 127) // 255
        tiles = sheet.reshape(SIDE, SIDE, side, side).transpose(0, 2, 1, 3)
        file = io.BytesIO()
        picture = Image.fromarray(tiles.reshape(SIDE * side, SIDE * side))
        picture.save(file, "WEBP", lossless=True, method=6, quality=75)
        return np.frombuffer(file.getvalue(), np.uint8)

    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        return list(pool.map(encoded, range(0, len(pictures), SIDE**2)))


def from_sheets(sheets: Sequence[Bytes], count: int) -> Bytes:
    """The first `count` pictures, uint8 [count,S,S] from 0 to 255."""

    def decoded(content: Bytes) -> Bytes:
        with Image.open(io.BytesIO(content.tobytes())) as picture:
            values = np.asarray(picture.convert("L")).astype(np.uint16)
        side = len(values) // SIDE
        tiles = ((values * 255 + LEVELS // 2) // LEVELS).astype(np.uint8)
        return tiles.reshape(SIDE, side, SIDE, side).transpose(0, 2, 1, 3).reshape(-1, side, side)

    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        return np.concatenate(list(pool.map(decoded, sheets)))[:count]
