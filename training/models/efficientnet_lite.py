"""EfficientNet-Lite0 (Google, 2020): EfficientNet-B0 for mobile CPUs, without squeeze-and-excitation.

Its tensors have the order and shapes of weights pretrained on ImageNet; names may differ. These weights were
trained with ReLU6, which helps only quantised networks. ReLU trains a fifth faster.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

STEM = 32
# Per stage: kernel, stride, expansion, channels.
STAGES = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (5, 2, 6, 40),
    (3, 2, 6, 80),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (3, 1, 6, 320),
)
FINE_STAGES = 5  # maps of later stages are too small to distinguish mouth and nose


class EfficientNetLite(nn.Sequential):
    """[N,channels,H,W] -> [N,features]: mean over positions of the last maps, H/32 x W/32.

    width: multiplies all channels, rounded to multiples of 8; depths: blocks per stage. With width 1 and
    depths 1, 2, 2, 3, 3, 4, 1 it is Lite0.
    """

    def __init__(self, channels: int, *, width: float, depths: Sequence[int]) -> None:
        wide = _scaled(STEM, width)
        layers: list[nn.Module] = [*_convolution(channels, wide, 3, stride=2), nn.ReLU(inplace=True)]
        for stage, (depth, (kernel, stride, expansion, published)) in enumerate(
            zip(depths, STAGES, strict=True)
        ):
            for block in range(depth):
                narrow, wide = wide, _scaled(published, width)
                layers.append(InvertedResidual(narrow, wide, kernel, 1 if block else stride, expansion))
            if stage + 1 == FINE_STAGES:
                fine = len(layers) - 1
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = wide
        self.fine = fine
        """Index of the last layer whose maps are fine enough to be shown."""


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; added to the input where the shape stays."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        widen = [*_convolution(channels_in, wide, 1), nn.ReLU(inplace=True)] if expansion > 1 else []
        self.body = nn.Sequential(
            *widen,
            *_convolution(wide, wide, kernel, stride=stride, groups=wide),
            nn.ReLU(inplace=True),
            *_convolution(wide, channels_out, 1),
        )
        self.skips = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.skips else y


def _convolution(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out, eps=1e-3),
    ]


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)
