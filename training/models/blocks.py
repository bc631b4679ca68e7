"""Building blocks that every network of the family is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvNormAct(nn.Sequential):
    """Convolution with "same" padding for odd kernels, batch norm, ReLU: [N,C,H,W] -> [N,C',H/s,W/s]."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class HalvingMax(nn.Module):
    """2x2 max pool, [N,C,H,W] -> [N,C,ceil(H/2),ceil(W/2)]; on few channels far faster than `MaxPool2d`."""

    def forward(self, x: Tensor) -> Tensor:
        odd_height, odd_width = x.shape[2] % 2, x.shape[3] % 2
        if odd_height + odd_width > 0:
            x = functional.pad(x, [0, odd_width, 0, odd_height], value=float("-inf"))
        x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        return torch.maximum(x[:, :, :, ::2], x[:, :, :, 1::2])


class OverlappingMax(nn.Module):
    """3x3 max pool of stride 2, [N,C,H,W] -> [N,C,H//2,W//2]; on few channels far faster than `MaxPool2d`.

    The last window of an even side holds two pixels of it.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        rows = torch.maximum(x[:, :, :height:2], x[:, :, 1:height:2])
        third = x[:, :, 2::2]
        shown = rows[:, :, : third.shape[2]]
        torch.maximum(shown, third, out=shown)
        columns = torch.maximum(rows[..., :width:2], rows[..., 1:width:2])
        third = rows[..., 2::2]
        shown = columns[..., : third.shape[3]]
        torch.maximum(shown, third, out=shown)
        return columns


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
    """Two 3x3 convolutions, with channel then spatial attention if asked for, added to a shortcut."""

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
