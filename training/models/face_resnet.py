"""The ResNet of dlib's face recognition (Davis King, 2017), as a backbone.

Its published weights are in the public domain. They were trained for face recognition on three million faces,
a hundred times more than a data set of expressions has.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.batch_norm import shifting

# Name in the published weights, and channels. The last published block is skipped: only recognition needs it.
_STAGES = {
    32: ("1", "2", "3"),
    64: ("down", "1", "2", "3"),
    128: ("down", "1", "2"),
    256: ("down", "1", "2"),
}
_BLOCKS = [(f"conv{width}_{block}", width) for width, blocks in _STAGES.items() for block in blocks]
_STEM, _STEM_WIDTH = "conv32_down", 32
_FIRST_BLOCK = 4  # its place in the network


def _convolution(before: int, after: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(after),
    )


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut: [N,C,H,W] -> [N,C',H,W], or halved if C' differs from C.

    When halving, the shortcut has means of 2x2 pixels, and zeros for new channels. The first convolution has
    no padding, so its maps may be one row short and are padded with zeros.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.added = channels_out - channels_in
        halving = self.added > 0
        self.first = _convolution(channels_in, channels_out, 3, 2 if halving else 1, 0 if halving else 1)
        self.second = _convolution(channels_out, channels_out, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(torch.relu(self.first(x)))
        if self.added > 0:
            x = functional.pad(functional.avg_pool2d(x, 2), [0, 0, 0, 0, 0, self.added])
            y = functional.pad(y, [0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]])
        return torch.relu(x + y)


class FaceResNet(nn.Sequential):
    """[N,1,H,W] -> [N,features]: mean over positions of the last maps.

    blocks: number of published blocks, counted from the input. With 10 the last maps have 128 channels and
    H/16 x W/16, with 11 to 13 they have 256 and H/32 x W/32.
    """

    fine = 13  # the last block of 128 channels; later maps are too small to distinguish mouth and nose

    def __init__(self, blocks: int = len(_BLOCKS)) -> None:
        widths = [_STEM_WIDTH, *(width for _, width in _BLOCKS[:blocks])]
        super().__init__(
            *_convolution(1, _STEM_WIDTH, 7, 2, 0),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            *(Block(*pair) for pair in itertools.pairwise(widths)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.features = widths[-1]


def published_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under the names of `FaceResNet`'s parameters. The first layer is for RGB.

    weights: those of `face_recognition_model-weights_manifest.json` of the npm package @vladmandic/face-api.
    Raises `KeyError` for others.
    """
    state = _unit(weights, _STEM, "0", "1")
    for place, (name, _) in enumerate(_BLOCKS, start=_FIRST_BLOCK):
        for number, part in enumerate(("first", "second"), start=1):
            state |= _unit(weights, f"{name}/conv{number}", f"{place}.{part}.0", f"{place}.{part}.1")
    return state


def _unit(weights: dict[str, Tensor], name: str, conv: str, norm: str) -> dict[str, Tensor]:
    """A convolution, its bias and what scales and shifts it, as a convolution and a batch norm."""
    scale = weights[f"{name}/scale/weights"]
    kernel = weights[f"{name}/conv/filters"].permute(3, 2, 0, 1) * scale[:, None, None, None]
    shift = weights[f"{name}/conv/bias"] * scale + weights[f"{name}/scale/biases"]
    return {f"{conv}.weight": kernel.contiguous(), **shifting(shift, norm)}
