"""The photos of the benchmarks: scenes around a portrait from scikit-image."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import encoded

HEAD = (110, 10, 320, 220)  # left, top, right, bottom in the portrait, px: a square around the head
LARGE = (4000, 3000)  # width, height in px of a phone's photo


def photo(width: int, height: int) -> NDArray[np.uint8]:
    """The astronaut in the middle of a larger scene: uint8 [height,width,3], one face."""
    scene = Image.fromarray(skimage.data.coffee()).resize((width, height))
    side = min(480, height)
    scene.paste(
        Image.fromarray(skimage.data.astronaut()).resize((side, side)),
        ((width - side) // 2, (height - side) // 2),
    )
    return np.array(scene)


def enlarged(scene: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The same scene with more pixels: uint8 [height,width,3]."""
    return np.array(Image.fromarray(scene).resize((width, height), Image.Resampling.LANCZOS))


def montage(width: int, height: int, columns: int = 4, rows: int = 2) -> NDArray[np.uint8]:
    """Rows of faces over the same background: uint8 [height,width,3]."""
    scene = Image.fromarray(skimage.data.coffee()).resize((width, height))
    side = min(width // columns, height // rows)
    head = Image.fromarray(skimage.data.astronaut()).crop(HEAD).resize((side, side))
    for row, column in product(range(rows), range(columns)):
        scene.paste(head, (column * (width // columns), row * (height // rows)))
    return np.array(scene)


def scenes() -> dict[str, bytes]:
    """JPEGs for the comparison of checkouts."""
    drawn = {
        "640x480, 1 face": photo(640, 480),
        "1280x960, 1 face": photo(1280, 960),
        "{}x{}, the same scene".format(*LARGE): enlarged(photo(640, 480), *LARGE),
        "1280x960, 30 faces": montage(1280, 960, columns=6, rows=5),
    }
    return {name: encoded(pixels) for name, pixels in drawn.items()}


def mixed(count: int) -> Iterator[bytes]:
    """JPEGs of different sizes; one in 32 is large.

    Memory that a server keeps for each new size shows only if the sizes differ.
    """
    chosen = random.Random(0)
    for number in range(count):
        if number % 32 == 31:
            yield encoded(photo(LARGE[0] - 16 * number, LARGE[1]))
            continue
        width = chosen.randrange(160, 1600)
        height = chosen.randrange(width // 2, width)
        yield encoded((montage if number % 8 == 7 else photo)(width, height))
