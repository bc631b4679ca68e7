"""Input and output of every network of the family."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from torch import Tensor, nn


class Outputs(NamedTuple):
    """Answers of a network for N faces."""

    logits: Tensor  # N,C of the main head, which is served
    label_logits: Tensor  # N,A of the label head, which is for training only (A may be 0)
    weights: Tensor  # N,2,E weight of each expert in both mixtures, 0 if not chosen
    scores: Tensor  # N,2,E gate softmax before the choice of experts
    pooled: Tensor  # N,P features of the extractors, pooled over the face, before the experts


class Network(nn.Module):
    """images: float [N,channels,size,size] in [0, 1] -> `Outputs`. One channel is grey, three are RGB.

    A network without experts answers weights and scores of zeros [N,2,4].
    """

    size: int
    channels: int

    def recalibrate_batch_norm(self, images: Tensor) -> None:
        """Recompute statistics on these images, and rescale so that answers stay the same.

        Published weights without statistics need it before training.
        """

    def gradcam_layer(self) -> nn.Module:
        """The last layer whose maps are fine enough for Grad-CAM."""
        raise NotImplementedError


def head(features: int, classes: int) -> nn.Linear:
    """[N,features] -> [N,classes]. A head of 0 classes is allowed, without torch's warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(features, classes)
