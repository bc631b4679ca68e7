"""Makes pictures that are not upright faces, because a detector's false faces are too rare to collect."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# images of faces float [N,C,S,S] in [0, 1] -> the same shape. All use torch's global generator.
NotFace = Callable[[Tensor], Tensor]


def _pattern(images: Tensor) -> Tensor:
    """Random textures: from smooth to fine, also with a direction, with edges or as waves."""
    count, _, side, _ = images.shape
    frequencies = torch.fft.fftfreq(side)
    across, down = frequencies.view(1, 1, 1, side), frequencies.view(1, 1, side, 1)
    angle = _between(count, 0, math.pi)
    along, beside = across * angle.cos() + down * angle.sin(), down * angle.cos() - across * angle.sin()
    size = torch.hypot(along, beside * _between(count, 0.2, 1)) + 0.5 / side
    noise = torch.fft.fft2(torch.randn(count, 1, side, side)) / size ** _between(count, 0.3, 2.5)
    texture = torch.fft.ifft2(noise).real
    texture = (texture - texture.mean(dim=(2, 3), keepdim=True)) / texture.std(dim=(2, 3), keepdim=True)
    edges, waves = torch.arange(count) % 3 == 1, torch.arange(count) % 3 == 2
    texture[edges] = texture[edges].sign() + 0.2 * texture[edges]
    texture[waves] = (texture[waves] * _between(int(waves.sum()), 1, 6)).sin()
    shades: Tensor = _between(count, 0.25, 0.75) + _between(count, 0.03, 0.25) * texture
    return shades.clamp(0, 1).expand_as(images)


def _part(images: Tensor) -> Tensor:
    """A small part of each face, enlarged."""
    count = len(images)
    share = _between(count, 0.2, 0.45).view(count)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = share
    affine[:, :, 2] = (torch.rand(count, 2) * 2 - 1) * (1 - share[:, None])
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bicubic", padding_mode="border", align_corners=False
    ).clamp(0, 1)


def _shuffled(images: Tensor) -> Tensor:
    """The face as a puzzle of 3 x 3, 4 x 4 or 6 x 6 parts in random order."""
    puzzles = images.clone()
    for turn, parts in enumerate((3, 4, 6)):
        rows = slice(turn, None, 3)
        side = images.shape[3] // parts
        whole = images[rows, :, : side * parts, : side * parts]
        pieces = functional.unfold(whole, side, stride=side)
        order = torch.rand(len(whole), 1, parts * parts).argsort(dim=2).expand_as(pieces)
        puzzle = functional.fold(pieces.gather(2, order), side * parts, side, stride=side)
        puzzles[rows, :, : side * parts, : side * parts] = puzzle
    return puzzles


def _turned(images: Tensor) -> Tensor:
    """The face turned by one, two or three quarters."""
    turned = images.clone()
    for quarters in (1, 2, 3):
        turned[quarters - 1 :: 3] = images[quarters - 1 :: 3].rot90(quarters, dims=(2, 3))
    return turned


NOT_FACES: dict[str, NotFace] = {
    "pattern": _pattern,
    "part": _part,
    "shuffled": _shuffled,
    "turned": _turned,
}


def _between(count: int, low: float, high: float) -> Tensor:
    """One random number for each image, [N,1,1,1]."""
    return low + (high - low) * torch.rand(count, 1, 1, 1)
