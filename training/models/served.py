"""The served model: a network with preprocessing and calibration in one graph, which takes uint8 faces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.outputs import Network


def grey(faces: Tensor) -> Tensor:
    """uint8 [N,3,S,S] RGB -> float [N,1,S,S] in [0, 1], by ITU-R BT.601, like Pillow's "L"."""
    red, green, blue = faces.float().unbind(dim=1)
    return ((0.299 * red + 0.587 * green + 0.114 * blue) / 255).unsqueeze(1)


class ServedClassifier(nn.Module):
    """faces uint8 [N,3,S,S] RGB -> probabilities float32 [N,C], gates [N,2,4], occlusion [N,1]
    and face_likeness [N,1].

    Probabilities are calibrated. occlusion, face_likeness: the layers over the network's pooled features that
    `training.hints` fits; the answers are the sigmoids of their logits.
    """

    def __init__(
        self, network: Network, temperature: float, occlusion: nn.Linear, face_likeness: nn.Linear
    ) -> None:
        super().__init__()
        self.network = network
        self.grey = network.channels == 1
        self.temperature = temperature
        self.occlusion = occlusion
        self.face_likeness = face_likeness

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images = grey(faces) if self.grey else faces.float() / 255
        outputs = self.network(images)
        probabilities = torch.softmax(outputs.logits / self.temperature, dim=1)
        occlusion, likeness = self.occlusion(outputs.pooled), self.face_likeness(outputs.pooled)
        return probabilities, outputs.weights, torch.sigmoid(occlusion), torch.sigmoid(likeness)
