"""Area resampling by summed-area tables (Crow, 1984): a cell costs four reads, however large it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def summed_area_table(image: Tensor) -> Tensor:
    """uint8 [H,W,3] -> int32 [>=H+1, W+1, 3]; entry (y, x) is the sum of all pixels above y and left of x.

    Sums may wrap around in int32: their differences are right as long as one cell's own sum fits, as it does
    up to 8 million pixels. The largest cell that the detector asks for in 100 megapixels has a tenth of that.
    """
    stride = 32
    rows = image.shape[0] + 1
    padded = nn.functional.pad(image, [0, 0, 1, 0, 1, (stride - rows % stride) % stride])
    table = padded.cumsum(1, dtype=torch.int32)
    # Down the columns cumsum is ten times slower than these sums of whole rows: within blocks, then across.
    blocks = table.view(-1, stride, table.shape[1] * 3)
    for row in range(1, stride):
        blocks[:, row] += blocks[:, row - 1]
    for block in range(1, blocks.shape[0]):
        blocks[block] += blocks[block - 1, stride - 1]
    return table


def cells(length: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First and one-past-last pixel of each of `count` cells over `length` px: [..., count] each.

    Cells may overlap by one pixel: the area resampling of `torch.nn.functional.interpolate`.
    """
    steps = torch.arange(count, device=length.device)
    first = torch.div(steps * length, count, rounding_mode="floor")
    end = torch.div((steps + 1) * length + count - 1, count, rounding_mode="floor")
    return first, end


def normalised(sums: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sums of cells int32 [...,h,w,3] and their sides in px [...,h], [...,w] -> means in (-1, 1)."""
    area = (rows[..., :, None] * columns[..., None, :])[..., None]
    return (sums / area - 127.5) * 0.0078125


def crops(table: Tensor, windows: Tensor, size: int) -> Tensor:
    """windows: int64 [N,4] (left, top, right, bottom) px inside the image -> float32 [N,3,size,size]."""
    left, right = cells((windows[:, 2] - windows[:, 0])[:, None], size)
    top, bottom = cells((windows[:, 3] - windows[:, 1])[:, None], size)
    width = table.shape[1]
    x = torch.cat([left, right], dim=1) + windows[:, :1]
    y = torch.cat([top, bottom], dim=1) + windows[:, 1:2]
    index = y[:, :, None] * width + x[:, None, :]
    corners = table.view(-1, 3).index_select(0, index.flatten()).view(-1, 2, size, 2, size, 3)
    sums = corners[:, 1, :, 1] - corners[:, 0, :, 1] - corners[:, 1, :, 0] + corners[:, 0, :, 0]
    # Channels lie innermost already: the networks run in channels_last, two to three times as fast on a CPU.
    return normalised(sums, bottom - top, right - left).permute(0, 3, 1, 2)
