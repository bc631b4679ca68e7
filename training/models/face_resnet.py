"""The ResNet of dlib's face recognition (Davis King, 2017), as a backbone.

Its published weights are in the public domain. They were trained for face recognition on three million faces,
a hundred times more than a data set of expressions has.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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

    @torch.no_grad()
    def recalibrate_batch_norm(self, images: Tensor) -> None:
        """Set the statistics of each batch norm from `images`, and undo the change by its scale and shift.

        Training with batch norm needs these statistics, and the published weights lack them.
        """

        def measure(norm: nn.Module, given: tuple[Tensor], _answer: Tensor) -> None:
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean = given[0].mean(dim=(0, 2, 3))
            variance = given[0].var(dim=(0, 2, 3), unbiased=False)
            before = (norm.running_var + norm.eps).sqrt()
            norm.bias.add_(norm.weight * (mean - norm.running_mean) / before)
            norm.weight.mul_((variance + norm.eps).sqrt() / before)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)

        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        hooks = [norm.register_forward_hook(measure) for norm in norms]
        training = self.training
        self.eval()(images)
        self.train(training)
        for hook in hooks:
            hook.remove()


def published_state(manifest: Path) -> dict[str, Tensor]:
    """The published weights under the names of `FaceResNet`'s parameters. The first layer is for RGB.

    manifest: `face_recognition_model-weights_manifest.json` of the npm package @vladmandic/face-api. The
    file that it names is in the same folder. Raises `ValueError` for any other manifest.
    """
    try:
        weights = _read(manifest)
        state = _unit(weights, _STEM, "0", "1")
        for place, (name, _) in enumerate(_BLOCKS, start=_FIRST_BLOCK):
            for number, part in enumerate(("first", "second"), start=1):
                state |= _unit(weights, f"{name}/conv{number}", f"{place}.{part}.0", f"{place}.{part}.1")
    except FileNotFoundError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{manifest} does not list the weights of face-api's face recognition: {error}"
        ) from error
    return state


def weight_file(manifest: Path) -> Path:
    """The file that a valid manifest names."""
    return manifest.parent / str(json.loads(manifest.read_text())[0]["paths"][0])


def _read(manifest: Path) -> dict[str, Tensor]:
    """Tensors in the weights format of TensorFlow.js, where values may be bytes with scale and minimum."""
    groups: list[dict[str, Any]] = json.loads(manifest.read_text())
    found: dict[str, Tensor] = {}
    for group in groups:
        data = b"".join((manifest.parent / path).read_bytes() for path in group["paths"])
        offset = 0
        for entry in group["weights"]:
            packing = entry.get("quantization")
            kind = np.dtype(packing["dtype"] if packing else entry["dtype"]).newbyteorder("<")
            count = int(np.prod(entry["shape"]))
            values = np.frombuffer(data, kind, count, offset).astype(np.float32)
            offset += count * kind.itemsize
            if packing:
                values = values * np.float32(packing["scale"]) + np.float32(packing["min"])
            found[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
    return found


def _unit(weights: dict[str, Tensor], name: str, conv: str, norm: str) -> dict[str, Tensor]:
    """A convolution, its bias and what scales and shifts it, as a convolution and a batch norm."""
    scale = weights[f"{name}/scale/weights"]
    kernel = weights[f"{name}/conv/filters"].permute(3, 2, 0, 1) * scale[:, None, None, None]
    return {
        f"{conv}.weight": kernel.contiguous(),
        f"{norm}.weight": torch.ones_like(scale),
        f"{norm}.bias": weights[f"{name}/conv/bias"] * scale + weights[f"{name}/scale/biases"],
        f"{norm}.running_mean": torch.zeros_like(scale),
        f"{norm}.running_var": torch.ones_like(scale),
    }
