"""The photos that are sent: scenes around one portrait that comes with scikit-image."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import encoded

HEAD = (110, 10, 320, 220)  # xyxy px of the portrait: a square around the head
LARGE = (4000, 3000)  # what a phone's camera delivers


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
    """The same scene as a camera of more pixels shows it: uint8 [height,width,3]."""
    return np.array(Image.fromarray(scene).resize((width, height), Image.Resampling.LANCZOS))


def montage(width: int, height: int) -> NDArray[np.uint8]:
    """Eight faces in two rows before the same scene: uint8 [height,width,3]."""
    scene = Image.fromarray(skimage.data.coffee()).resize((width, height))
    side = min(width // 4, height // 2)
    head = Image.fromarray(skimage.data.astronaut()).crop(HEAD).resize((side, side))
    for place in range(8):
        scene.paste(head, (place % 4 * (width // 4), place // 4 * (height // 2)))
    return np.array(scene)


def mixed(count: int) -> Iterator[bytes]:
    """JPEGs of as many sizes as there are photos, as a service meets them; one of 32 is a large one.

    Memory that is kept for each new size shows only if sizes differ.
    """
    chosen = random.Random(0)
    for number in range(count):
        if number % 32 == 31:
            yield encoded(photo(LARGE[0] - 16 * number, LARGE[1]))
            continue
        width = chosen.randrange(160, 1600)
        height = chosen.randrange(width // 2, width)
        yield encoded((montage if number % 8 == 7 else photo)(width, height))
