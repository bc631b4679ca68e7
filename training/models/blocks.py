"""Building blocks that every network of the family is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution with "same" padding for odd kernels, batch norm, ReLU: [N,C,H,W] -> [N,C',H/s,W/s]."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class ChannelAttention(nn.Module):
    """Squeeze and excitation (Hu et al., 2018): scales each channel by a gate in (0, 1)."""

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(channels // reduction, 8))
        self.excite = nn.Linear(max(channels // reduction, 8), channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class SpatialAttention(nn.Module):
    """Spatial half of CBAM (Woo et al., 2018): scales each position by a gate in (0, 1)."""

    def __init__(self, *, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(summary))


class Residual(nn.Module):
    """Two 3x3 convolutions, with channel and spatial attention if `attention`, added to a shortcut."""

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: int = 1, attention: bool = False
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormAct(channels_in, channels_out, 3, stride=stride),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        if attention:
            self.body.extend([ChannelAttention(channels_out), SpatialAttention()])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))
