"""Batched augmentation on the device: pose, light, noise and occlusion."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """images: float [N,1,H,W] in [0, 1] -> the same faces as other photographs might show them."""
    images = _pose(images, generator)
    images = _light(images, generator)
    images = images + _uniform(images, 0.0, 0.03, generator) * torch.randn(
        images.shape, generator=generator, device=images.device
    )
    return _occlude(images.clamp(0, 1), generator)


def _pose(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror, turn up to 15 degrees, scale up to 15 %, shift up to 8 % of the side."""
    count = len(images)
    angle = _uniform(images, -math.pi / 12, math.pi / 12, generator).view(count)
    scale = _uniform(images, 0.85, 1.15, generator).view(count)
    mirror = torch.sign(_uniform(images, -1.0, 1.0, generator)).view(count)
    shift = torch.stack([_uniform(images, -0.16, 0.16, generator).view(count) for _ in range(2)], dim=1)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rotation = torch.stack([cos * mirror, -sin, sin * mirror, cos], dim=1).view(count, 2, 2)
    affine = torch.cat([rotation, shift[:, :, None]], dim=2)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _light(images: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma from 0.6 to 1.6, and light from one side of the face."""
    side = torch.linspace(-1, 1, images.shape[3], device=images.device)
    lamp = 1 + _uniform(images, -0.3, 0.3, generator) * side
    return (images * lamp).clamp(1e-3, 1) ** torch.exp(_uniform(images, -0.5, 0.5, generator))


def _occlude(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images lose a rectangle of up to 40 % x 40 % to its mean grey."""
    size = images.shape[2]
    ticks = torch.arange(size, device=images.device)
    inside = _uniform(images, 0.0, 1.0, generator) < 0.5
    for shape in ((1, 1, size, 1), (1, 1, 1, size)):
        start = _uniform(images, 0.0, 1.0, generator) * size
        length = _uniform(images, 0.1, 0.4, generator) * size
        position = ticks.view(shape)
        inside = inside & (position >= start) & (position < start + length)
    return torch.where(inside, images.mean(dim=(2, 3), keepdim=True), images)


def _uniform(images: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
    return low + (high - low) * draw
