"""The MTCNN of facenet-pytorch: tests compare the project's detector with this reference.

facenet-pytorch imports torchvision, requests and tqdm. Its detector needs only one function of torchvision.
Stand-ins replace these packages, since a torchvision for the installed torch may not exist.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.arrays import Detections
from tests.stand_ins import STAND_INS

# These packages can always be installed, but the detector does not need them.
_NOT_NEEDED = ("requests", "requests.adapters", "tqdm")


class Reference:
    """The detector of facenet-pytorch. The constructor skips the test if facenet-pytorch is not installed."""

    def __init__(self) -> None:
        if find_spec("facenet_pytorch") is None:
            pytest.skip("the reference is not installed: pip install --no-deps facenet-pytorch==2.6.0")
        with mock.patch.dict(sys.modules, STAND_INS | {name: mock.MagicMock() for name in _NOT_NEEDED}):
            from facenet_pytorch import MTCNN
        self._cascade = MTCNN(keep_all=True, post_process=False)

    def detect(self, image: NDArray[np.uint8], min_face_px: float, threshold: float) -> Detections:
        self._cascade.min_face_size = min_face_px
        boxes, scores, landmarks = self._cascade.detect(image, landmarks=True)
        if boxes is None:
            return Detections(
                np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32)
            )
        kept = scores.astype(np.float32) >= threshold
        return Detections(*(values.astype(np.float32)[kept] for values in (boxes, scores, landmarks)))
