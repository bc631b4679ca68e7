"""What every network of the family takes and answers."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from torch import Tensor, nn


class Outputs(NamedTuple):
    """What a network of the family answers for N faces."""

    logits: Tensor  # N,C over the served labels
    auxiliary: Tensor  # N,A over the labels of the second, training-only head (A may be 0)
    weights: Tensor  # N,2,E what each expert of both mixtures weighed, 0 if not chosen
    scores: Tensor  # N,2,E gate softmax before the choice
    pooled: Tensor  # N,P what the extractors saw, pooled over the face, before any expert


class Network(nn.Module):
    """images: float [N,channels,size,size] in [0, 1] -> `Outputs`. One channel is grey, three are RGB.

    A network without experts answers weights and scores of zeros [N,2,4].
    """

    size: int
    channels: int

    def settle(self, images: Tensor) -> None:
        """Called with training images once weights came from elsewhere; changes no answer."""

    def shown_layer(self) -> nn.Module:
        """The last layer of the backbone whose maps are fine enough for a heatmap of the face."""
        raise NotImplementedError


def head(features: int, classes: int) -> nn.Linear:
    """[N,features] -> [N,classes]; a head of no classes is none, not a mistake to be warned of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(features, classes)
