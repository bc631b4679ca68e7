"""Runs a network on the faces of a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.datasets.faces import LabelledFaces
from training.images import Images, in_order
from training.models import Network, Outputs

Floats = NDArray[np.float32]


class Predictions(NamedTuple):
    """Answers for N faces.

    probabilities: [N,C] of the main head, calibrated; label_probabilities: [N,A] of the label head;
    logits: [N,C] before the temperature; weights, scores: [N,2,E] of the experts (zero without experts);
    pooled: [N,P] features before the experts.
    """

    probabilities: Floats
    label_probabilities: Floats
    logits: Floats
    weights: Floats
    scores: Floats
    pooled: Floats

    def at(self, temperature: float) -> Predictions:
        """The same answers with probabilities at another temperature."""
        logits = torch.from_numpy(self.logits)
        return self._replace(probabilities=torch.softmax(logits / temperature, dim=1).numpy())


def predict(
    network: Network,
    faces: LabelledFaces,
    *,
    temperature: float = 1.0,
    flip: bool = False,
    change: Callable[[Tensor], Tensor] | None = None,
    batch: int = 256,
) -> Predictions:
    """The network's calibrated answers for all faces, as `answer` computes them."""
    outputs = answer(network, faces, flip=flip, change=change, batch=batch)
    return Predictions(
        torch.softmax(outputs.logits / temperature, dim=1).numpy(),
        torch.softmax(outputs.label_logits, dim=1).numpy(),
        outputs.logits.numpy(),
        outputs.weights.numpy(),
        outputs.scores.numpy(),
        outputs.pooled.numpy(),
    )


@torch.no_grad()
def answer(
    network: Network,
    faces: LabelledFaces | Images,
    *,
    flip: bool = False,
    change: Callable[[Tensor], Tensor] | None = None,
    batch: int = 256,
) -> Outputs:
    """The network's outputs for all faces, on the CPU. Runs on the network's device. Sets eval mode.

    flip: average the outputs of each image and its mirror, so that the same temperature fits.
    change: applied to every batch of images, float [n,channels,size,size] in [0, 1].
    """
    network.eval()
    if isinstance(faces, LabelledFaces):
        faces = Images(faces.pictures, network, device_of(network))
    parts: list[list[Tensor]] = []
    for _, images in faces.steps(in_order(len(faces), batch)):
        if change is not None:
            images = change(images)
        outputs = list(network(images))
        if flip:
            outputs = [(a + b) / 2 for a, b in zip(outputs, network(images.flip(3)), strict=True)]
        parts.append([output.float().cpu() for output in outputs])
    return Outputs(*(torch.cat(part) for part in zip(*parts, strict=True)))


def device_of(network: Network) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
