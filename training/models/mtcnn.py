"""MTCNN (Zhang et al., 2016, arXiv 1604.02878) as one TorchScript module with facenet-pytorch's weights.

The cascade answers what `facenet_pytorch.MTCNN.detect` (2.6.0) answers at its default thresholds and pyramid
factor, but every resampling reads one summed-area table: a pyramid level or a crop costs its own size, not
the image's, and the crops of a stage are cut together.
"""

from __future__ import annotations

from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from training.models.blocks import HalvingMax
from training.models.boxes import regressed, square, suppress
from training.models.summed_area import cells, crops, normalised, summed_area_table


class _SwapFlatten(nn.Module):
    """[N,C,H,W] -> [N, W*H*C], the order the published dense layers were trained in."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


class _Net(nn.Module):
    """A trunk and one head: channel 0 is the score in (0, 1), 1-4 move the box, 5-14 are landmarks."""

    CHUNK = 128  # crops taken at once: bounds memory, and stays near a CPU's cache
    __constants__ = ("CHUNK",)

    def __init__(self, trunk: OrderedDict[str, nn.Module], head: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.channels = head.weight.shape[0]
        self.trunk = nn.Sequential(trunk)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        answer = self.head(self.trunk(x))
        return torch.cat([answer[:, :1].sigmoid(), answer[:, 1:]], dim=1)

    def judge(self, table: Tensor, windows: Tensor, size: int) -> Tensor:
        """Its answer on the crop [3,size,size] of each window [N,4]: float32 [N,5 or 15]."""
        answers = torch.empty([windows.shape[0], self.channels], dtype=torch.float32, device=windows.device)
        for start in range(0, windows.shape[0], self.CHUNK):
            part = windows[start : start + self.CHUNK]
            answers[start : start + self.CHUNK] = self(crops(table, part, size))
        return answers

    def load_published(self, state: dict[str, Tensor], heads: tuple[str, ...]) -> None:
        """Take facenet-pytorch's state; `heads` names its two-class softmax first, then what is regressed.

        A softmax over two classes is a sigmoid of their difference, so the head keeps one score row. Channels
        that the published trunk does not have stay zero.
        """
        with torch.no_grad():
            for kind, target in (("weight", self.head.weight), ("bias", self.head.bias)):
                classes, *regressed = (state.pop(f"{head}.{kind}") for head in heads)
                assert target is not None
                target.copy_(torch.cat([classes[1:] - classes[:1], *regressed]))
            for name, value in self.trunk.state_dict().items():
                published = state.pop(name)
                value.zero_()[tuple(slice(side) for side in published.shape)] = published
        assert not state, state.keys()


def _pool(kernel: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel, 2, ceil_mode=True)


def _p_net() -> _Net:
    # Published with ten channels in front; a CPU is four times as fast on the sixteen of its vectors.
    trunk: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 16, 3),
        prelu1=nn.PReLU(16),
        pool1=HalvingMax(),
        conv2=nn.Conv2d(16, 16, 3),
        prelu2=nn.PReLU(16),
        conv3=nn.Conv2d(16, 32, 3),
        prelu3=nn.PReLU(32),
    )
    return _Net(trunk, nn.Conv2d(32, 5, 1))


def _r_net() -> _Net:
    trunk: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 28, 3),
        prelu1=nn.PReLU(28),
        pool1=_pool(3),
        conv2=nn.Conv2d(28, 48, 3),
        prelu2=nn.PReLU(48),
        pool2=_pool(3),
        conv3=nn.Conv2d(48, 64, 2),
        prelu3=nn.PReLU(64),
        flatten=_SwapFlatten(),
        dense4=nn.Linear(576, 128),
        prelu4=nn.PReLU(128),
    )
    return _Net(trunk, nn.Linear(128, 5))


def _o_net() -> _Net:
    trunk: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 32, 3),
        prelu1=nn.PReLU(32),
        pool1=_pool(3),
        conv2=nn.Conv2d(32, 64, 3),
        prelu2=nn.PReLU(64),
        pool2=_pool(3),
        conv3=nn.Conv2d(64, 64, 3),
        prelu3=nn.PReLU(64),
        pool3=_pool(2),
        conv4=nn.Conv2d(64, 128, 2),
        prelu4=nn.PReLU(128),
        flatten=_SwapFlatten(),
        dense5=nn.Linear(1152, 256),
        prelu5=nn.PReLU(256),
    )
    return _Net(trunk, nn.Linear(256, 15))


def published_weights(net: str) -> dict[str, Tensor]:
    """State of "pnet", "rnet" or "onet" out of the installed facenet-pytorch, which is not imported.

    Importing it needs torchvision, and its pins (torch < 2.3) forbid a plain install beside a current torch.
    Raises `FileNotFoundError` that says how to install it.
    """
    spec = find_spec("facenet_pytorch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / f"{net}.pt"
        if path.is_file():
            state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
            return state
    raise FileNotFoundError(
        "MTCNN's weights are not installed: pip install --no-deps facenet-pytorch==2.6.0 "
        "(without --no-deps it replaces torch, numpy and pillow by old ones)"
    )


class Mtcnn(nn.Module):
    """The cascade: pyramid, P-net, R-net and O-net, each followed by non-maximum suppression."""

    FACTOR = 0.709  # from one pyramid level to the next
    CELL = 12  # P-net's receptive field, and so the smallest face it can see
    P_THRESHOLD = 0.6
    R_THRESHOLD = 0.7
    O_THRESHOLD = 0.7
    STRIP = 1 << 17  # pixels of a level that P-net takes at once: fits a CPU's cache, bounds memory
    # Bound the time a hostile image can take. A photo of 29 faces has a thousand candidates in all; a montage
    # of 400 faces loses none to these caps, one of 1089 faces 5 %.
    LEVEL_CAP = 16384  # best candidates of one level that enter suppression
    CROP_CAP = 4096  # best candidates of all levels that R-net sees
    __constants__ = (
        "FACTOR",
        "CELL",
        "P_THRESHOLD",
        "R_THRESHOLD",
        "O_THRESHOLD",
        "STRIP",
        "LEVEL_CAP",
        "CROP_CAP",
    )

    def __init__(self) -> None:
        super().__init__()
        self.p_net = _p_net()
        self.r_net = _r_net()
        self.o_net = _o_net()

    @classmethod
    def published(cls) -> Mtcnn:
        """The cascade with facenet-pytorch's weights, in eval mode and without gradients."""
        cascade = cls()
        cascade.p_net.load_published(published_weights("pnet"), ("conv4_1", "conv4_2"))
        cascade.r_net.load_published(published_weights("rnet"), ("dense5_1", "dense5_2"))
        cascade.o_net.load_published(published_weights("onet"), ("dense6_1", "dense6_2", "dense6_3"))
        cascade.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cascade.eval().requires_grad_(False)

    def forward(self, image: Tensor, min_face_px: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find faces; the best score comes first, boxes may reach beyond the image.

        image: uint8 [H,W,3] RGB; min_face_px: float32 [1], taken as 12 if lower or not a number;
        threshold: float32 [1], on top of the cascade's own 0.7
        -> boxes float32 [N,4] xyxy px, scores float32 [N], landmarks float32 [N,5,2] px.
        """
        height, width = image.shape[0], image.shape[1]
        table = summed_area_table(image)
        boxes = self.propose(table, height, width, float(min_face_px.item()))

        boxes, windows = self.inside(boxes, height, width)
        answer = self.r_net.judge(table, windows, 24)
        passed = answer[:, 0] > self.R_THRESHOLD
        boxes, answer = boxes[passed], answer[passed]
        picked = suppress(boxes, answer[:, 0], 0.7)
        boxes = square(regressed(boxes[picked], answer[picked, 1:5], 1.0))

        boxes, windows = self.inside(boxes, height, width)
        answer = self.o_net.judge(table, windows, 48)
        passed = answer[:, 0] > self.O_THRESHOLD
        boxes, answer = boxes[passed], answer[passed]
        offsets = torch.stack([answer[:, 5:10], answer[:, 10:15]], dim=2)
        landmarks = boxes[:, None, :2] + offsets * (boxes[:, 2:] - boxes[:, :2] + 1)[:, None] - 1
        boxes = regressed(boxes, answer[:, 1:5], 1.0)
        picked = suppress(boxes, answer[:, 0], 0.7, of_smaller=True)
        picked = picked[answer[picked, 0] >= threshold]
        return boxes[picked], answer[picked, 0], landmarks[picked]

    def propose(self, table: Tensor, height: int, width: int, min_face_px: float) -> Tensor:
        """P-net's candidates over the whole pyramid: square boxes float32 [N,4]."""
        scale = self.CELL / (min_face_px if min_face_px >= self.CELL else float(self.CELL))
        shorter = min(height, width) * scale
        found = torch.empty([0, 9], dtype=torch.float32, device=table.device)
        while shorter >= self.CELL:
            level = self.scan(table, height, width, scale)
            if level.shape[0] > self.LEVEL_CAP:
                level = level[level[:, 4].topk(self.LEVEL_CAP, sorted=False)[1].sort()[0]]
            level = level[suppress(level[:, :4], level[:, 4], 0.5)]
            found = torch.cat([found, level])
            scale *= self.FACTOR
            shorter *= self.FACTOR
        found = found[suppress(found[:, :4], found[:, 4], 0.7)[: self.CROP_CAP]]
        return square(regressed(found[:, :4], found[:, 5:], 0.0))

    def scan(self, table: Tensor, height: int, width: int, scale: float) -> Tensor:
        """P-net over one level: float32 [N,9] of box, score and regression, in image pixels."""
        level_height, level_width = int(height * scale + 1), int(width * scale + 1)
        left, right = cells(torch.tensor(width, device=table.device), level_width)
        top, bottom = cells(torch.tensor(height, device=table.device), level_height)
        channel = torch.arange(3, device=table.device)
        left_index = (left[:, None] * 3 + channel).flatten()[None]
        right_index = (right[:, None] * 3 + channel).flatten()[None]
        lines = table.flatten(1)

        # A 2-px stride and a 12-px field: n rows of answers need 2n + 10 rows of pixels.
        map_height = (level_height - 1) // 2 - 4
        strip = max(16, self.STRIP // (2 * level_width))
        found: list[Tensor] = []
        for start in range(0, map_height, strip):
            above = top[2 * start : 2 * (start + strip) + 10]
            below = bottom[2 * start : 2 * (start + strip) + 10]
            sums = lines.index_select(0, below) - lines.index_select(0, above)
            count = above.shape[0]
            sums = sums.gather(1, right_index.expand(count, -1)) - sums.gather(
                1, left_index.expand(count, -1)
            )
            pixels = normalised(sums.view(count, level_width, 3), below - above, right - left)
            answer = self.p_net(pixels.permute(2, 0, 1)[None])[0]
            at = (answer[0] >= self.P_THRESHOLD).nonzero()
            corner = at.flip(1) * 2.0
            corner[:, 1] += 2.0 * start
            first = ((corner + 1) / scale).floor()
            last = ((corner + self.CELL) / scale).floor()
            found.append(torch.cat([first, last, answer[:, at[:, 0], at[:, 1]].t()], dim=1))
        return torch.cat(found)

    def inside(self, boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Boxes that show some of the image, and what they show: int64 [N,4] left, top, right, bottom."""
        corners = boxes.trunc().long()  # counted from 1 at the first pixel, as the weights were trained
        start = corners[:, :2].clamp(min=1) - 1
        end = torch.stack([corners[:, 2].clamp(max=width), corners[:, 3].clamp(max=height)], dim=1)
        shown = (end > start).all(dim=1)
        return boxes[shown], torch.cat([start, end], dim=1)[shown]
