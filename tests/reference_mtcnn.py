"""facenet-pytorch's own MTCNN, the reference that the detector is compared with.

It is imported with stand-ins for what its package asks for but its detector does not need (torchvision,
requests, tqdm), since the torchvision that fits the installed torch may not exist.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from service.arrays import Detections

_STAND_INS = (
    "requests",
    "requests.adapters",
    "tqdm",
    "torchvision",
    "torchvision.transforms",
    "torchvision.ops",
    "torchvision.ops.boxes",
)


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


class Reference:
    """Skips the test that makes one if facenet-pytorch is not installed."""

    def __init__(self) -> None:
        if find_spec("facenet_pytorch") is None:
            pytest.skip("the reference is not installed: pip install --no-deps facenet-pytorch==2.6.0")
        stand_ins: dict[str, Any] = {name: mock.MagicMock() for name in _STAND_INS}
        stand_ins["torchvision.ops.boxes"].batched_nms = greedy_nms
        with mock.patch.dict(sys.modules, stand_ins):
            from facenet_pytorch import MTCNN
        self._cascade = MTCNN(keep_all=True, post_process=False)

    def detect(self, image: NDArray[np.uint8], min_face_px: float, threshold: float) -> Detections:
        self._cascade.min_face_size = min_face_px
        boxes, scores, landmarks = self._cascade.detect(image, landmarks=True)
        if boxes is None:
            return Detections(
                np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32)
            )
        certain = scores.astype(np.float32) >= threshold
        return Detections(*(values.astype(np.float32)[certain] for values in (boxes, scores, landmarks)))
