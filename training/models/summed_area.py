"""Area resampling by summed-area tables (Crow, 1984): a cell costs four reads, however large it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def summed_area_table(image: Tensor) -> Tensor:
    """uint8 [H,W,3] -> int32 [H+1,W+1,3]; entry (y, x) is the sum of all pixels above y and left of x.

    Sums may wrap around in int32. Differences are right while the sum of one cell fits, up to 8 million
    pixels. The largest cell that the detector reads in 100 megapixels has a tenth of these pixels.
    """
    padded = nn.functional.pad(image.int(), [0, 0, 1, 0, 1, 0])
    return padded.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)


def cells(steps: Tensor, length: Tensor, count: Tensor) -> Tensor:
    """Edges of the cells `steps` [N,n] of `count` [N,1] over `length` [N,1] px: int64 [N,2,n].

    First and one-past-last pixel. Cells may overlap by one: the area resampling of
    `torch.nn.functional.interpolate`.
    """
    first = torch.div(steps * length, count, rounding_mode="floor")
    end = torch.div((steps + 1) * length + count - 1, count, rounding_mode="floor")
    return torch.stack([first, end], dim=1)


def crops(table: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Means in (-1, 1) over cells with edges int64 [N,2,n] inside the table: float32 [N,3,n,n]."""
    size, width = x.shape[2], table.shape[1]
    index = y.flatten(1)[:, :, None] * width + x.flatten(1)[:, None, :]
    corners = table.view(-1, 3).index_select(0, index.flatten()).view(-1, 2, size, 2, size, 3)
    sums = corners[:, 1, :, 1] - corners[:, 0, :, 1] - corners[:, 1, :, 0] + corners[:, 0, :, 0]
    area = (y[:, 1] - y[:, 0])[:, :, None] * (x[:, 1] - x[:, 0])[:, None, :]
    return ((sums / area[..., None] - 127.5) * 0.0078125).permute(0, 3, 1, 2)
