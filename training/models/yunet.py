"""YuNet (Wu et al., 2023, doi 10.1007/s11633-023-1423-y), with libfacedetection's weights, as TorchScript.

One pass over one shrunk image finds faces of every size from 16 px of it upwards, frontal or not.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.models.blocks import HalvingMax
from training.models.boxes import suppress

# What the sixteen numbers of a cell tell: class, objectness, centre and size of the box, five landmarks.
_HEADS = (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
# Place in the network, channels before, between and after.
_STAGES = (
    ("narrow", 16, 16, 32),
    ("wide", 32, 32, 64),
    ("low", 64, 64, 64),
    ("middle", 64, 64, 64),
    ("high", 64, 64, 64),
)


class Separable(nn.Module):
    """Pointwise, then depthwise 3x3 convolution; the first as a product, unless the image's size is `usual`.

    By oneDNN large maps take as little as half of the time, but it generates code for each of their
    sizes, which takes 0.2 ms and memory.
    """

    PRODUCT = 1 << 17  # numbers in a map up to which a product is as quick
    __constants__ = ("PRODUCT",)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pointwise = nn.Linear(inputs, outputs)
        self.depthwise = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs)

    def forward(self, x: Tensor, usual: bool) -> Tensor:
        if usual and x.shape[1] * x.shape[2] * x.shape[3] > self.PRODUCT:
            # Dilation changes nothing about one pixel, but keeps torch from leaving the convolution of one
            # thread to BLAS, which has no AVX-512 for other CPUs than Intel's.
            kernel = self.pointwise.weight[:, :, None, None]
            mixed = functional.conv2d(x, kernel, self.pointwise.bias, dilation=2)
        else:
            mixed = self.pointwise(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        spread: Tensor = self.depthwise(mixed)
        return spread


class Rectified(nn.Module):
    """`Separable`, then a ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.separable = Separable(inputs, outputs)

    def forward(self, x: Tensor, usual: bool) -> Tensor:
        answer: Tensor = self.separable(x, usual)
        return answer.relu_()


class Block(nn.Module):
    """Two of `Rectified`."""

    def __init__(self, inputs: int, between: int, outputs: int) -> None:
        super().__init__()
        self.first = Rectified(inputs, between)
        self.second = Rectified(between, outputs)

    def forward(self, x: Tensor, usual: bool) -> Tensor:
        answer: Tensor = self.second(self.first(x, usual), usual)
        return answer


class YuNet(nn.Module):
    """Anchor-free single-shot detector over cells of 8, 16 and 32 px of the shrunk image."""

    STRIDES = (8, 16, 32)
    FACE = 16  # px of the smallest face in the shrunk image; below, libfacedetection's weights miss most
    LEAST_FACE = 12  # px of an image's smallest face, then enlarged to 16
    PIXELS = 1 << 20  # of the shrunk image at most: bounds time and memory, whatever comes in
    PIECE = 1 << 18  # pixels of it for which the large maps are computed at a time
    CAMERA = 1 << 19  # pixels of it beyond which it is a camera's photo: of their sizes there are few
    MARGIN = 24  # px around a piece that its maps depend on: 19, and whole cells of the finest stride
    SCORE = 0.3  # least score of a candidate, libfacedetection's
    CANDIDATES = 5000  # best of them that enter suppression, OpenCV's limit
    OVERLAP = 0.3  # intersection over union above which the surer face suppresses the other
    # A sure face has a score of 0.6 to 0.95. The fifth root puts 0.6 at 0.9 and 0.95 at 0.99.
    CERTAINTY = 0.2
    __constants__ = (
        "STRIDES",
        "FACE",
        "LEAST_FACE",
        "PIXELS",
        "PIECE",
        "CAMERA",
        "MARGIN",
        "SCORE",
        "CANDIDATES",
        "OVERLAP",
        "CERTAINTY",
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.stem_block = Rectified(16, 16)
        self.halved = HalvingMax()
        self.narrow = Block(16, 16, 32)
        self.wide = Block(32, 32, 64)
        self.pooled = nn.MaxPool2d(2)
        # At an eighth of the image's side; one map each for strides 8, 16 and 32.
        self.low = Block(64, 64, 64)
        self.middle = Block(64, 64, 64)
        self.high = Block(64, 64, 64)
        self.lateral = nn.ModuleList(Rectified(64, 64) for _ in self.STRIDES)
        self.heads = nn.ModuleList(Separable(64, sum(width for _, width in _HEADS)) for _ in self.STRIDES)

    @classmethod
    def published(cls) -> YuNet:
        """The network with libfacedetection's weights, in eval mode and without gradients."""
        network = cls()
        network.load_state_dict(published_state())
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.eval().requires_grad_(False)

    def forward(self, image: Tensor, min_face_px: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find faces; the best score comes first, boxes may reach beyond the image.

        image: uint8 [H,W,3] RGB; min_face_px: float32 [1], least longer side of a box, taken as 12 if lower
        or not a number; threshold: float32 [1], on top of 0.3 ** 0.2 = 0.786
        -> boxes float32 [N,4] xyxy px, scores float32 [N], landmarks float32 [N,5,2] px: eyes, nose, mouth.
        """
        least = self.least(min_face_px)
        return self.find(image, least, least, threshold, False)

    @torch.jit.export
    def spread(self, image: Tensor, min_face_px: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, to the last bit, for when other cores are idle: they help with large images."""
        least = self.least(min_face_px)
        return self.find(image, least, least, threshold, True)

    def find(
        self, image: Tensor, searched: float, least: float, threshold: Tensor, spread: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`: faces from `least` px on in the image shrunk so that `searched` px are 16."""
        height, width = image.shape[0], image.shape[1]
        shrunk = self.shrink(image, searched)
        # Both sides in px of the image; rounding makes them differ.
        pixel = torch.tensor(
            [width / max(shrunk.shape[3], 1), height / max(shrunk.shape[2], 1)], device=image.device
        )

        candidates = self.candidates(shrunk, spread)
        if candidates.shape[0] > self.CANDIDATES:
            candidates = candidates[candidates[:, 0].topk(self.CANDIDATES)[1]]
        scores = candidates[:, 0] ** self.CERTAINTY
        points = candidates[:, 1:].view(-1, 7, 2) * pixel
        boxes = points[:, :2].flatten(1)
        sides = (points[:, 1] - points[:, 0]).amax(dim=1)
        wanted = (scores >= threshold) & (sides >= least)
        boxes, scores, landmarks = boxes[wanted], scores[wanted], points[wanted, 2:]
        kept = suppress(boxes, scores, self.OVERLAP)
        return boxes[kept], scores[kept], landmarks[kept]

    def least(self, min_face_px: Tensor) -> float:
        """Longer side in px of the smallest face that is looked for."""
        asked = float(min_face_px.item())
        return asked if asked >= self.LEAST_FACE else float(self.LEAST_FACE)

    def shrink(self, image: Tensor, least: float) -> Tensor:
        """The image with its smallest face at 16 px: [1,3,h,w], at most a megapixel; on a GPU of floats."""
        height, width = image.shape[0], image.shape[1]
        scale = min(self.FACE / least, (self.PIXELS / max(height * width, 1)) ** 0.5)
        pixels = image.permute(2, 0, 1)[None]
        if height * width == 0:
            return pixels
        # On a CPU torch resizes bytes five times as fast as floats; on a GPU it cannot resize them at all.
        if image.is_cuda:
            pixels = pixels.float()
        size = [max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))]
        if size[0] == height and size[1] == width:
            return pixels
        return functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)

    def candidates(self, image: Tensor, spread: bool) -> Tensor:
        """Cells that may show a face: float32 [N,15] of score, box and landmarks, in pixels of `image`."""
        height, width = image.shape[2], image.shape[3]
        coarsest = self.STRIDES[2]
        padding = [0, (coarsest - width % coarsest) % coarsest, 0, (coarsest - height % coarsest) % coarsest]
        found: list[Tensor] = [torch.empty([0, 15], dtype=torch.float32, device=image.device)]
        if height * width > 0:
            # Channels last, as an image's bytes lie already where it was not shrunk here.
            image = image.contiguous(memory_format=torch.channels_last)
            levels = self.maps(functional.pad(image, padding), spread)
            for level, stride in zip(levels, self.STRIDES, strict=True):
                found.append(self.decoded(level[0], stride))
        return torch.cat(found)

    def maps(self, image: Tensor, spread: bool) -> tuple[Tensor, Tensor, Tensor]:
        """[1,3,32h,32w] -> the answers of each stride's cells: [1,16,4h,4w], [1,16,2h,2w], [1,16,h,w]."""
        usual = image.shape[2] * image.shape[3] > self.CAMERA
        low = self.low(self.eighth(image, usual, spread), usual)
        middle = self.middle(self.pooled(low), usual)
        high = self.lateral[2](self.high(self.pooled(middle), usual), usual)
        middle = self.lateral[1](middle + functional.interpolate(high, scale_factor=2.0), usual)
        low = self.lateral[0](low + functional.interpolate(middle, scale_factor=2.0), usual)
        return self.heads[0](low, usual), self.heads[1](middle, usual), self.heads[2](high, usual)

    def eighth(self, image: Tensor, usual: bool, spread: bool) -> Tensor:
        """[1,3,8h,8w] -> [1,64,h,w], piece by piece: all of a large image's maps at once fit no cache."""
        height, width = image.shape[2], image.shape[3]
        pieces = (height * width + self.PIECE - 1) // self.PIECE
        spread = spread and pieces > 1
        if spread:
            pieces += pieces % 2
        rows = (height // 8 + pieces - 1) // pieces * 8
        found: list[Tensor] = []
        helped: list[torch.jit.Future[Tensor]] = []
        for top in range(0, height, rows):
            if spread:
                helped.append(torch.jit.fork(self.piece, image, top, rows, usual))  # type: ignore[no-untyped-call]
            else:
                found.append(self.piece(image, top, rows, usual))
        for future in helped:
            found.append(torch.jit.wait(future))  # type: ignore[no-untyped-call]
        return torch.cat(found, dim=2)

    def piece(self, image: Tensor, top: int, rows: int, usual: bool) -> Tensor:
        """Of `eighth`, what comes from the rows `top` to `top` + `rows` of the image."""
        first = max(top - self.MARGIN, 0)
        bottom = min(top + rows, image.shape[2])
        piece = image[:, :, first : min(bottom + self.MARGIN, image.shape[2])].float()
        halved = self.halved(self.stem_block(self.stem(piece).relu_(), usual))
        answers: Tensor = self.pooled(self.wide(self.narrow(halved, usual), usual))
        return answers[:, :, (top - first) // 8 : (bottom - first) // 8]

    def decoded(self, answers: Tensor, stride: int) -> Tensor:
        """answers: [16,h,w] of one stride -> as `candidates` tells them."""
        scores = (answers[0].sigmoid() * answers[1].sigmoid()).sqrt()
        at = (scores > self.SCORE).nonzero()
        answer = answers[:, at[:, 0], at[:, 1]].t()
        cell = at.flip(1)
        centre = answer[:, 2:4] + cell
        half = answer[:, 4:6].exp() / 2
        landmarks = answer[:, 6:] + cell.repeat(1, 5)
        places = torch.cat([centre - half, centre + half, landmarks], dim=1) * stride
        return torch.cat([scores[at[:, 0], at[:, 1]][:, None], places], dim=1)


class PublishedWeights:
    """Arrays out of the library in yuface's wheel, which is libfacedetection with its weights compiled in.

    Raises `FileNotFoundError` that says how to install it.
    """

    def __init__(self) -> None:
        spec = find_spec("yuface")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder) / "libfacedetection.so"
            if path.is_file():
                self._library = ctypes.CDLL(str(path))
                return
        raise FileNotFoundError("YuNet's weights are not installed: pip install --no-deps yuface==2023.5.1")

    def read(self, name: str, *shape: int) -> Tensor:
        numbers = (ctypes.c_float * int(np.prod(shape))).in_dll(self._library, name)
        return torch.tensor(numbers[:]).view(shape)


def published_state() -> dict[str, Tensor]:
    """libfacedetection's weights under the names of `YuNet`'s parameters."""
    weights = PublishedWeights()
    # The stem takes patches of 3 x 3 pixels in BGR, padded from 27 numbers to 32.
    patches = weights.read("backbone__model0_pw_weight", 16, 32)[:, :27].view(16, 3, 3, 3)
    state = {
        "stem.weight": patches.permute(0, 3, 1, 2).flip(1),
        "stem.bias": weights.read("backbone__model0_pw_bias", 16),
    }
    units = {"stem_block.separable": [("backbone__model0_dp", 16, 16)]}
    for stage, (place, inputs, between, outputs) in enumerate(_STAGES, start=1):
        units[f"{place}.first.separable"] = [(f"backbone__model{stage}_dp1", inputs, between)]
        units[f"{place}.second.separable"] = [(f"backbone__model{stage}_dp2", between, outputs)]
    for level in range(len(YuNet.STRIDES)):
        units[f"lateral.{level}.separable"] = [(f"neck__lateral_convs__{level}", 64, 64)]
        units[f"heads.{level}"] = [(f"bbox_head__multi_level_{n}__{level}", 64, width) for n, width in _HEADS]
    for place, parts in units.items():
        read = [_unit(weights, *part) for part in parts]
        state |= {f"{place}.{name}": torch.cat([part[name] for part in read]) for name in read[0]}
    return state


def _unit(weights: PublishedWeights, name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {
        "pointwise.weight": weights.read(f"{name}_pw_weight", outputs, inputs),
        "pointwise.bias": weights.read(f"{name}_pw_bias", outputs),
        "depthwise.weight": weights.read(f"{name}_dw_weight", 9, outputs).t().reshape(outputs, 1, 3, 3),
        "depthwise.bias": weights.read(f"{name}_dw_bias", outputs),
    }
