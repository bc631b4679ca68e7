"""Stand-ins for torchvision, of which facenet-pytorch's detector needs only `batched_nms`.

A torchvision for the installed torch may not exist.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch


def greedy_nms(boxes: torch.Tensor, scores: torch.Tensor, _: torch.Tensor, limit: float) -> torch.Tensor:
    """torchvision's `batched_nms` for a batch of one image."""
    corners = boxes.numpy()
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    order = np.argsort(-scores.numpy(), kind="stable")
    kept: list[int] = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        left, top = np.maximum(corners[best, :2], corners[order, :2]).T
        right, bottom = np.minimum(corners[best, 2:], corners[order, 2:]).T
        shared = np.maximum(0, right - left) * np.maximum(0, bottom - top)
        order = order[shared / (areas[best] + areas[order] - shared) <= limit]
    return torch.tensor(kept, dtype=torch.int64)


STAND_INS: dict[str, Any] = {
    name: mock.MagicMock()
    for name in ("torchvision", "torchvision.transforms", "torchvision.ops", "torchvision.ops.boxes")
}
STAND_INS["torchvision.ops.boxes"].batched_nms = greedy_nms
