"""Runs a network on the faces of a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.datasets.faces import LabelledFaces
from training.models import Network

Floats = NDArray[np.float32]


class Predictions(NamedTuple):
    """Answers for N faces.

    probabilities: [N,C] of the served head, calibrated; auxiliary: [N,A] of the training-only head;
    logits: [N,C] before the temperature; weights, scores: [N,2,E] of the experts (zero without experts);
    pooled: [N,P] features before the experts.
    """

    probabilities: Floats
    auxiliary: Floats
    logits: Floats
    weights: Floats
    scores: Floats
    pooled: Floats


@torch.no_grad()
def predict(
    network: Network,
    faces: LabelledFaces,
    *,
    temperature: float = 1.0,
    flip: bool = False,
    change: Callable[[Tensor], Tensor] | None = None,
    batch: int = 256,
    device: torch.device | None = None,
) -> Predictions:
    """The network's answers for all faces. Sets eval mode.

    flip: average the logits of each image and its mirror, so that the same temperature fits.
    change: applied to every batch of images, float [n,channels,size,size] in [0, 1].
    """
    network.eval()
    parts: list[list[Tensor]] = []
    for start in range(0, len(faces), batch):
        rows = np.arange(start, min(start + batch, len(faces)))
        pixels = faces.pictures.read(rows, size=network.size, channels=network.channels)
        images = torch.from_numpy(pixels).to(device).float() / 255
        if change is not None:
            images = change(images)
        outputs = list(network(images))
        if flip:
            outputs = [(a + b) / 2 for a, b in zip(outputs, network(images.flip(3)), strict=True)]
        parts.append([output.float().cpu() for output in outputs])
    logits, auxiliary, weights, scores, pooled = (torch.cat(part) for part in zip(*parts, strict=True))
    return Predictions(
        torch.softmax(logits / temperature, dim=1).numpy(),
        torch.softmax(auxiliary, dim=1).numpy(),
        logits.numpy(),
        weights.numpy(),
        scores.numpy(),
        pooled.numpy(),
    )
