"""Boxes as MTCNN handles them: squares, regression, non-maximum suppression; all of it TorchScript."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def overlaps(a: Tensor, b: Tensor, of_smaller: bool = False) -> Tensor:
    """Intersection over union of boxes [N,4] and boxes [M,4]: float32 [N,M].

    of_smaller: over the smaller box instead, and with the pixels of both edges inside.
    """
    edge = 1.0 if of_smaller else 0.0
    a_left, a_top, a_right, a_bottom = a[:, :, None].unbind(1)
    b_left, b_top, b_right, b_bottom = b[:, :, None].transpose(0, 2).unbind(1)
    shared = (torch.minimum(a_right, b_right) - torch.maximum(a_left, b_left)).add_(edge).clamp_(min=0)
    shared *= (torch.minimum(a_bottom, b_bottom) - torch.maximum(a_top, b_top)).add_(edge).clamp_(min=0)
    area_a = (a_right - a_left + edge) * (a_bottom - a_top + edge)
    area_b = (b_right - b_left + edge) * (b_bottom - b_top + edge)
    whole = torch.minimum(area_a, area_b) if of_smaller else area_a + area_b - shared
    return shared / whole


def suppress(boxes: Tensor, scores: Tensor, limit: float, of_smaller: bool = False) -> Tensor:
    """Greedy non-maximum suppression; indices of the kept boxes, best score first: int64 [K]."""
    order = scores.argsort(stable=True, dim=0, descending=True)
    boxes = boxes[order]
    kept = order[:0]
    start = 0
    while start < boxes.shape[0]:
        # Bounds the matrix of pairs to a few million entries, also for a hostile image.
        size = max(64, min(1024, 2_000_000 // max(kept.shape[0], 1)))
        rivals = torch.arange(start, min(start + size, boxes.shape[0]), device=boxes.device)
        if start > 0:
            beaten = (overlaps(boxes[kept], boxes[rivals], of_smaller) > limit).any(dim=0)
            rivals = rivals[~beaten]
        beats = (overlaps(boxes[rivals], boxes[rivals], of_smaller) > limit).triu(1).float()
        # A box is dropped if a kept box before it beats it. Repeating this from "all kept" converges to the
        # greedy answer, because n rounds settle at least the first n boxes. Few are needed in practice.
        keep = torch.ones_like(rivals, dtype=torch.float32)
        settled = False
        while not settled:
            after = (keep @ beats == 0).float()
            settled = torch.equal(after, keep)
            keep = after
        kept = torch.cat([kept, rivals[keep > 0]])
        start += size
    return order[kept]


class Suppression(nn.Module):
    """`suppress` by intersection over union, as a module, which export to ONNX replaces by an operator."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return suppress(boxes, scores, self.limit)


def square(boxes: Tensor) -> Tensor:
    """Boxes [N,4] grown around their centre to squares of the longer side."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = sides.amax(dim=1, keepdim=True)
    corner = boxes[:, :2] + sides * 0.5 - side * 0.5
    return torch.cat([corner, corner + side], dim=1)


def regressed(boxes: Tensor, shift: Tensor, edge: float) -> Tensor:
    """Boxes [N,4] with each edge moved by `shift` [N,4], in units of the box's sides (+ `edge` px)."""
    sides = (boxes[:, 2:] - boxes[:, :2] + edge).repeat(1, 2)
    return boxes + shift * sides
