"""Several teachers give one answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.datasets.faces import PixelPictures
from training.images import Images
from training.models import Network, Outputs
from training.teachers import Teachers


class Brightness(Network):
    """The logits are multiples of the brightness of the left half of an image."""

    size, channels = 48, 1

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Outputs:
        left = self.factor * images[:, 0, :, :24].mean(dim=(1, 2))
        nothing = torch.zeros(len(images), 2, 4)
        logits, auxiliary = torch.stack([left, -left], 1), torch.stack([left, 2 * left], 1)
        return Outputs(logits, auxiliary, nothing, nothing, left[:, None])


def test_teachers_answer_with_the_mean_of_their_logits() -> None:
    taught = Teachers([Brightness(1.0), Brightness(3.0)]).teach(torch.full((2, 1, 48, 48), 0.5))
    assert taught.served.tolist() == [[1.0, -1.0]] * 2
    assert taught.auxiliary.tolist() == [[1.0, 2.0]] * 2


def test_teach_once_averages_each_image_and_its_mirror() -> None:
    half = np.zeros((3, 48, 48), np.uint8)
    half[1, :, :24] = half[2, :, 24:] = 255
    teachers = Teachers([Brightness(1.0), Brightness(3.0)])
    taught = teachers.teach_once(Images(PixelPictures(half), teachers, torch.device("cpu")))
    assert taught.served.tolist() == [[0, 0], [1, -1], [1, -1]]
    assert taught.auxiliary.tolist() == [[0, 0], [1, 2], [1, 2]]
