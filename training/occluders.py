"""Draws occluders over faces, because data sets have too few pictures of covered faces."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# (images float [N,C,S,S] in [0, 1], share of the area [N,1,1,1]) -> (mask of the occluder [N,1,S,S], its
# pixels, which broadcast to [N,C,S,S]). `_mask` and `_glasses` ignore the share: the face sets their size.
Occluder = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def occlude(images: Tensor, share: float | Tensor, occluder: Occluder | None = None) -> Tensor:
    """Cover a part of each face, with all of `OCCLUDERS` alternating or only with `occluder`.

    images: float [N,C,S,S] in [0, 1]; share: approximate share of the covered area, one or [N].
    Uses torch's global generator.
    """
    shares = torch.as_tensor(share, dtype=images.dtype, device=images.device).expand(len(images))
    if occluder is None:
        covered = images.clone()
        for turn, kind in enumerate(OCCLUDERS.values()):
            rows = slice(turn, None, len(OCCLUDERS))
            covered[rows] = occlude(images[rows], shares[rows], kind)
        return covered
    place, thing = occluder(images, shares.view(-1, 1, 1, 1))
    # Blurs edges as a lens does.
    place = functional.avg_pool2d(functional.pad(place, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return images * (1 - place) + thing.clamp(0, 1) * place


def _patch(images: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """A rectangle of another face."""
    across, down = _relative_grid(images, 0.1, 0.9)
    half_width, half_height = _half_sides(images, share)
    return _inside(torch.maximum(across.abs() / half_width, down.abs() / half_height)), _shifted(images)


def _board(images: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """A turned rectangle with a gradient of shades: a sheet, a phone."""
    across, down = _turned(*_relative_grid(images, 0.1, 0.9))
    half_width, half_height = _half_sides(images, share)
    slope = [_between(images, -0.3, 0.3) for _ in "xy"]
    shade = _between(images, 0, 1) + slope[0] * across + slope[1] * down
    place = _inside(torch.maximum(across.abs() / half_width, down.abs() / half_height))
    return place, _grainy(shade.expand_as(place), images)


def _blob(images: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """A turned ellipse with another picture's texture: hair, a cup, food."""
    across, down = _turned(*_relative_grid(images, 0.05, 0.95))
    half_width, half_height = (side * 2 / math.sqrt(math.pi) for side in _half_sides(images, share))
    place = _inside((across / half_width) ** 2 + (down / half_height) ** 2)
    return place, _shifted(images) * _between(images, 0.4, 1.2)


def _hand(images: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Two to four fingers from the border, about as bright as the face, with shaded sides."""
    angle = _between(images, 0, 2 * math.pi)
    grid_across, grid_down = _grid(images)
    across, down = _turned(grid_across - 0.5 - 0.35 * angle.cos(), grid_down - 0.5 - 0.35 * angle.sin())
    width = _between(images, 0.05, 0.08) * (share / 0.2).sqrt()
    length = _between(images, 0.15, 0.35)
    fingers = torch.randint(2, 5, (len(images), 1, 1, 1), device=images.device)
    skin = images.mean(dim=(1, 2, 3), keepdim=True) * _between(images, 0.8, 1.25)
    place = torch.zeros_like(down)
    shade = torch.zeros_like(down)
    for finger in range(4):
        aside = (down - (finger - (fingers - 1) / 2) * 2.1 * width) / width
        here = (aside.abs() < 1) & (across < length) & (across > -0.7) & (finger < fingers)
        place = torch.where(here, 1.0, place)
        shade = torch.where(here, skin * (1.08 - 0.35 * aside**2), shade)
    return place, _grainy(shade, images)


def _mask(images: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Cloth over nose and mouth, with or without folds."""
    across, down = _grid(images)
    across = across - 0.5
    upper_edge = _between(images, 0.48, 0.66) + _between(images, 0.1, 0.25) * across**2
    upper_edge = upper_edge + _between(images, -0.06, 0.06) * across
    place = (down > upper_edge) & (across.abs() < _between(images, 0.36, 0.5))
    folds = ((down - upper_edge) * _between(images, 20, 60)).sin() * _between(images, 0, 0.075)
    shade = _between(images, 0.05, 0.95) + folds - _between(images, 0, 0.8) * across**2
    return place.to(images.dtype), _grainy(shade, images)


def _glasses(images: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Dark glasses."""
    across, down = _grid(images)
    across, down = across - 0.5, down - _between(images, 0.34, 0.43)
    apart = _between(images, 0.16, 0.21)
    radii = _between(images, 0.12, 0.18), _between(images, 0.08, 0.14)
    lens = ((across.abs() - apart) / radii[0]) ** 2 + (down / radii[1]) ** 2 < 1
    frame = ((down + 0.02).abs() < 0.02) & (across.abs() < 0.45)
    shade = _between(images, 0, 0.25) + _between(images, 0, 0.3) * down
    return (lens | frame).to(images.dtype), _grainy(shade, images)


OCCLUDERS: dict[str, Occluder] = {
    "patch": _patch,
    "board": _board,
    "blob": _blob,
    "hand": _hand,
    "mask": _mask,
    "glasses": _glasses,
}


def _between(images: Tensor, low: float, high: float) -> Tensor:
    """One random number for each image, [N,1,1,1]."""
    return low + (high - low) * torch.rand(len(images), 1, 1, 1, device=images.device)


def _grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Across [1,1,1,S] and down [1,1,S,1], in sides of the image."""
    side = images.shape[3]
    ticks = (torch.arange(side, device=images.device) + 0.5) / side
    return ticks.view(1, 1, 1, side), ticks.view(1, 1, side, 1)


def _relative_grid(images: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The grid relative to a random centre between `low` and `high`."""
    across, down = _grid(images)
    return across - _between(images, low, high), down - _between(images, low, high)


def _turned(across: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    angle = _between(across, 0, 2 * math.pi)
    return across * angle.cos() + down * angle.sin(), down * angle.cos() - across * angle.sin()


def _half_sides(images: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    stretch = _between(images, -0.6, 0.6).exp()
    return (share * stretch).sqrt() / 2, (share / stretch).sqrt() / 2


def _inside(distance: Tensor) -> Tensor:
    return (distance < 1).to(distance.dtype)


def _shifted(images: Tensor) -> Tensor:
    """Another image of the batch, shifted so that its eyes do not cover the eyes."""
    side = images.shape[3]
    shifts = [int(torch.randint(side // 4, side, ())) for _ in "yx"]
    return images.roll((1, *shifts), dims=(0, 2, 3))


def _grainy(shade: Tensor, images: Tensor) -> Tensor:
    grain = torch.randn(len(images), 1, *images.shape[2:], device=images.device)
    return shade + _between(images, 0, 0.06) * grain
