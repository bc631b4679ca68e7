"""What is served: a network with everything around it inside the graph, so that the wire carries bytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.outputs import Network


def grey(faces: Tensor) -> Tensor:
    """uint8 [N,3,S,S] RGB -> float [N,1,S,S] in [0, 1], by ITU-R BT.601 as Pillow's "L"."""
    red, green, blue = faces.float().unbind(dim=1)
    return ((0.299 * red + 0.587 * green + 0.114 * blue) / 255).unsqueeze(1)


class ServedClassifier(nn.Module):
    """faces uint8 [N,3,S,S] RGB -> (calibrated probabilities float32 [N,C], gates float32 [N,2,4])."""

    def __init__(self, network: Network, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.grey = network.channels == 1
        self.temperature = temperature

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        images = grey(faces) if self.grey else faces.float() / 255
        outputs = self.network(images)
        return torch.softmax(outputs.logits / self.temperature, dim=1), outputs.weights
