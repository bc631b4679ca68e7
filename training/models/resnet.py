"""ResNet-50 (He et al., 2016) as keras-vggface builds it for VGGFace2 (Cao et al., 2018).

torchvision's ResNet-50 has the same shapes but another geometry. Here, the first 1x1 convolution of a stage
has its stride, not the 3x3 one. The pooling has no padding. The first convolution is padded by 2 px before
and 3 px after: Keras' "same". Layers have names like keras-vggface's, so that a state dict of the other
geometry does not match.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-3  # of batch norm, Keras' default


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut: [N,C,H,W] -> [N,4*width,H/s,W/s], rounded up."""

    def __init__(self, channels_in: int, width: int, *, stride: int, projected: bool) -> None:
        super().__init__()
        self.reduce = _convolution(channels_in, width, 1, stride)
        self.spatial = _convolution(width, width, 3)
        self.increase = _convolution(width, 4 * width, 1)
        self.proj = _convolution(channels_in, 4 * width, 1, stride) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.spatial(torch.relu(self.reduce(x))))
        return torch.relu(self.increase(y) + self.proj(x))


class ResNet50(nn.Module):
    """[N,3,H,W], H and W even -> [N,2048], averaged over positions."""

    features = 2048

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((2, 3, 2, 3))
        self.conv1 = _convolution(3, 64, 7, 2, padding=0)
        self.pool = nn.MaxPool2d(3, 2)
        self.conv2 = _stage(64, 64, 3, stride=1)
        self.conv3 = _stage(256, 128, 4, stride=2)
        self.conv4 = _stage(512, 256, 6, stride=2)
        self.conv5 = _stage(1024, 512, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(self.pad(x))))
        maps: Tensor = self.conv5(self.conv4(self.conv3(self.conv2(x))))
        return maps.mean(dim=(2, 3))


def _stage(channels_in: int, width: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = Bottleneck(channels_in, width, stride=stride, projected=True)
    return nn.Sequential(
        first, *(Bottleneck(4 * width, width, stride=1, projected=False) for _ in range(blocks - 1))
    )


def _convolution(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, padding: int | None = None
) -> nn.Sequential:
    """Batch norm averages keep 0.99 of the past, as in Keras."""
    padding = kernel // 2 if padding is None else padding
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out, eps=EPSILON, momentum=0.01),
    )
