"""`attention`: residual blocks, attention and parallel kernels of several sizes, without experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.config import AttentionConfig
from training.models.blocks import ConvNormAct, Residual
from training.models.outputs import Network, Outputs, head


class MultiScale(nn.Module):
    """Kernels 3, 5 and 7 side by side, joined and halved: [N,C,H,W] -> [N,channels_out,H/2,W/2]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            ConvNormAct(channels_in, channels_out // 2, kernel, stride=2) for kernel in (3, 5, 7)
        )
        self.join = ConvNormAct(3 * (channels_out // 2), channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat([branch(x) for branch in self.branches], dim=1))
        return joined


class AttentionNetwork(Network):
    """images: float [N,3,96,96] RGB in [0, 1] -> `Outputs`, with gates of zero for lack of experts.

    Every stage of residual blocks ends in channel and spatial attention. The head gets the features of the
    last two stages, fine and coarse.
    """

    size = 96
    channels = 3

    def __init__(self, config: AttentionConfig, emotions: int, label_emotions: int) -> None:
        super().__init__()
        channels = config.width
        self.stem = MultiScale(3, channels)
        stages: list[nn.Module] = []
        for index, depth in enumerate(config.depths):
            blocks: list[nn.Module] = []
            wide = config.width << index
            for block in range(depth):
                stride = 2 if index and block == 0 else 1
                blocks.append(Residual(channels, wide, stride=stride, attention=block == depth - 1))
                channels = wide
            stages.append(nn.Sequential(*blocks))
        self.backbone = nn.Sequential(*stages[:-1])
        self.last = stages[-1]
        self.dropout = nn.Dropout(config.dropout)
        features = channels + channels // 2
        self.main_head = head(features, emotions)
        self.label_head = head(features, label_emotions)

    def forward(self, images: Tensor) -> Outputs:
        fine = self.backbone(self.stem(images))
        coarse = self.last(fine)
        pooled = torch.cat([fine.mean(dim=(2, 3)), coarse.mean(dim=(2, 3))], dim=1)
        features = self.dropout(pooled)
        gates = torch.zeros(len(images), 2, 4, device=images.device)
        return Outputs(self.main_head(features), self.label_head(features), gates, gates, pooled)

    def gradcam_layer(self) -> nn.Module:
        return self.backbone[-1]
