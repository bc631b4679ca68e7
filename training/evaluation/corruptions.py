"""Corruptions of pictures, and the accuracy of a network on corrupted pictures.

Lengths are shares of the image's side, so that a corruption is the same for all input sizes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from kornia.filters import gaussian_blur2d, motion_blur
from kornia.geometry.transform import rotate
from PIL import Image
from torch import Tensor
from torch.nn import functional

from service.core.manifest import Metric
from training.datasets.faces import LabelledFaces
from training.evaluation.metrics import accuracy, plurality, selective
from training.evaluation.predict import predict
from training.models import Network


@dataclass(frozen=True)
class Corruption:
    """apply: (images float [N,C,S,S] in [0, 1], strength) -> the same shape."""

    name: str
    apply: Callable[[Tensor, float], Tensor]
    strengths: tuple[float, ...]
    unit: str = ""


def blur(images: Tensor, sigma: float) -> Tensor:
    deviation = sigma * images.shape[3]
    kernel = 2 * int(np.ceil(3 * deviation)) + 1
    blurred: Tensor = gaussian_blur2d(
        images, (kernel, kernel), (deviation, deviation), border_type="replicate"
    )
    return blurred


def shake(images: Tensor, length: float) -> Tensor:
    kernel = 2 * (round(length * images.shape[3]) // 2) + 1
    shaken: Tensor = motion_blur(images, max(kernel, 3), 30.0, 0.0, border_type="replicate")
    return shaken


def noise(images: Tensor, deviation: float) -> Tensor:
    return (images + deviation * torch.randn_like(images)).clamp(0, 1)


def jpeg(images: Tensor, quality: float) -> Tensor:
    """Compress with Pillow's encoder, a common source of JPEG files."""
    pixels = (images * 255).round().byte().cpu().numpy()
    decoded = []
    for image in pixels:
        stored = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(
            stored, "JPEG", quality=int(quality)
        )
        array = np.asarray(Image.open(stored))
        decoded.append(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
    return torch.from_numpy(np.stack(decoded)).to(images.device).float() / 255


def darken(images: Tensor, light: float) -> Tensor:
    """Less light with constant sensor noise."""
    return _stored(images * light + 0.01 * torch.randn_like(images))


def overexpose(images: Tensor, light: float) -> Tensor:
    """More light than a sensor can record."""
    return _stored(images * light)


def fade(images: Tensor, share: float) -> Tensor:
    """Haze or glare: all pixels move towards the face's mean; sensor noise is added."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return _stored(mean + (images - mean) * share + 0.01 * torch.randn_like(images))


def cover(images: Tensor, share: float) -> Tensor:
    """Cover `share` of the area with a grey square, at a random place in each image."""
    count, _, side, _ = images.shape
    length = round(share**0.5 * side)
    corner = torch.randint(0, side - length + 1, (2, count, 1, 1), device=images.device)
    ticks = torch.arange(side, device=images.device)
    down, across = ticks.view(1, side, 1), ticks.view(1, 1, side)
    inside = (down >= corner[0]) & (down < corner[0] + length)
    inside = inside & (across >= corner[1]) & (across < corner[1] + length)
    return torch.where(inside.unsqueeze(1), 0.5, images)


def turn(images: Tensor, degrees: float) -> Tensor:
    """Rotate half of the images to each side."""
    side = torch.where(torch.arange(len(images), device=images.device) % 2 == 0, 1.0, -1.0)
    turned: Tensor = rotate(images, degrees * side, padding_mode="border")
    return turned


def shrink(images: Tensor, side: float) -> Tensor:
    """Shrink to `side` px and enlarge again, as the gateway's crop enlarges a distant face."""
    small = functional.interpolate(images, size=(int(side), int(side)), mode="bilinear", antialias=True)
    return functional.interpolate(small, size=images.shape[2:], mode="bilinear").clamp(0, 1)


def zoom(images: Tensor, factor: float) -> Tensor:
    """A tighter crop for factors above 1, a wider one below. Beyond the image, its border is repeated."""
    return _framed(images, factor, 0.0)


def shift(images: Tensor, share: float) -> Tensor:
    """Move half of the images to each side by `share` of the side."""
    return _framed(images, 1.0, share)


def gamma(images: Tensor, exponent: float) -> Tensor:
    """Another tone curve: darker midtones for exponents above 1, brighter ones below."""
    return _stored(images**exponent)


def grain(images: Tensor, deviation: float) -> Tensor:
    """Film grain: noise of about 2 px, strongest in midtones."""
    count, _, side, _ = images.shape
    coarse = torch.randn(count, 1, side // 2, side // 2, device=images.device)
    grains = functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return _stored(images + deviation * 4 * images * (1 - images) * grains)


def _framed(images: Tensor, factor: float, share: float) -> Tensor:
    """Sample each image around its middle, moved by `share` of the side, to alternating sides."""
    side = torch.where(torch.arange(len(images), device=images.device) % 2 == 0, 2.0, -2.0)
    place = torch.zeros(len(images), 2, 3, device=images.device)
    place[:, 0, 0] = place[:, 1, 1] = 1 / factor
    place[:, 0, 2] = share * side
    grid = functional.affine_grid(place, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _stored(images: Tensor) -> Tensor:
    """In 256 steps, as in a file."""
    return (images.clamp(0, 1) * 255).round() / 255


CORRUPTIONS = (
    Corruption("blur", blur, (0.01, 0.02, 0.03, 0.045, 0.06), "sigma, share of the side"),
    Corruption("motion blur", shake, (0.06, 0.1, 0.15, 0.2, 0.27), "length, share of the side"),
    Corruption("noise", noise, (0.02, 0.05, 0.1, 0.15, 0.2), "standard deviation"),
    Corruption("JPEG", jpeg, (50, 30, 20, 10, 5), "quality"),
    Corruption("darkness", darken, (0.5, 0.25, 0.12, 0.06, 0.03), "share of the light"),
    Corruption("occlusion", cover, (0.05, 0.1, 0.2, 0.3, 0.4), "share of the area"),
    Corruption("rotation", turn, (5, 10, 20, 30, 45), "degrees"),
    Corruption("low resolution", shrink, (32, 24, 16, 12, 8), "px a side"),
)


@dataclass(frozen=True)
class CorruptionResult:
    """Figures under one corruption. certain: share of answers at or above the verdict's threshold."""

    corruption: str
    unit: str
    strength: float
    accuracy: Metric
    certain: float
    certain_accuracy: float


def measure_robustness(
    network: Network, faces: LabelledFaces, temperature: float, threshold: float
) -> list[CorruptionResult]:
    """All corruptions at all strengths, on all faces with votes."""
    rows = faces.rows(faces.all_votes.sum(axis=1) > 0)

    def under(corruption: Corruption, strength: float) -> CorruptionResult:
        torch.manual_seed(0)
        predicted = predict(
            network, rows, temperature=temperature, change=lambda images: corruption.apply(images, strength)
        )
        covered, reached = selective(*plurality(predicted.probabilities, rows), threshold)
        return CorruptionResult(
            corruption.name,
            corruption.unit,
            strength,
            accuracy(predicted.probabilities, rows.majority),
            round(covered, 4),
            round(reached, 4),
        )

    return [under(corruption, strength) for corruption in CORRUPTIONS for strength in corruption.strengths]
