"""Images with known faces, and detectors that are called as the gateway calls them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from service.core.arrays import Detections
from training.formats import script

Pixels = NDArray[np.uint8]
Detect = Callable[[Pixels, float, float], Detections]


def scripted(network: nn.Module) -> Detect:
    module = script(network)

    def run(image: Pixels, min_face_px: float, threshold: float) -> Detections:
        with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            found = module(
                torch.from_numpy(np.array(image)),  # a copy: PIL's memory is read-only
                torch.tensor([min_face_px], dtype=torch.float32),
                torch.tensor([threshold], dtype=torch.float32),
            )
        return Detections(*(values.numpy() for values in found))

    return run


def astronaut(side: int = 512) -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()).resize((side, side), Image.Resampling.LANCZOS)


def montage() -> Pixels:
    """uint8 [420,640,3]: 24 heads of 40 to 95 px, some mirrored, tilted by up to 12 degrees or darkened."""
    head = astronaut().crop((140, 20, 310, 210))
    canvas = Image.new("RGB", (640, 420), (90, 110, 100))
    for tile_number in range(24):
        tile = head.rotate((-12, 0, 7, 12)[tile_number % 4], Image.Resampling.BICUBIC)
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if tile_number % 3 == 0 else tile
        tile = tile.point([int(value * (1, 0.8, 1.15)[tile_number % 3]) for value in range(256)] * 3)
        height = 60 + 45 * (tile_number % 5) // 4
        tile = tile.resize((height * 170 // 190, height), Image.Resampling.LANCZOS)
        canvas.paste(tile, (tile_number % 6 * 105, tile_number // 6 * 105))
    return np.asarray(canvas)


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scale_brightness(image: Image.Image, factor: float) -> Pixels:
    return (np.asarray(image) * factor).clip(0, 255).astype(np.uint8)


def overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of boxes [N,4] and [M,4]: [N,M]."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = sides.clip(0).prod(axis=2)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    iou: NDArray[np.float32] = shared / (area_a[:, None] + area_b[None, :] - shared)
    return iou


IMAGES: dict[str, tuple[Callable[[], Pixels], float, int]] = {
    # name: (image, min_face_px, minimum number of faces that a detector must find)
    "astronaut": (lambda: np.asarray(astronaut()), 20, 1),
    "small": (lambda: np.asarray(astronaut(200)), 20, 1),
    "smallest": (lambda: np.asarray(astronaut(96)), 12, 1),
    "large": (lambda: np.asarray(astronaut(901)), 40, 1),
    "fractional minimum": (lambda: np.asarray(astronaut(300)), 33.3, 1),
    "montage": (montage, 20, 20),
    "tilted": (lambda: np.asarray(astronaut().rotate(8, Image.Resampling.BICUBIC)), 40, 1),
    "dark": (lambda: scale_brightness(astronaut(), 0.35), 40, 1),
    "bright": (lambda: scale_brightness(astronaut(), 1.6), 40, 1),
    "wide": (lambda: np.asarray(astronaut())[30:261], 40, 1),
    "tall": (lambda: np.asarray(astronaut())[:, 131:312], 40, 1),
    "at the edge": (lambda: np.asarray(astronaut())[80:, 200:], 30, 0),
    "grey": (lambda: np.asarray(astronaut().convert("L").convert("RGB")), 40, 1),
    "noise": (lambda: noise(310, 260), 20, 0),
}
