"""MTCNN (Zhang et al., 2016, arXiv 1604.02878) around known faces.

Around these faces, the cascade finds what `facenet_pytorch.MTCNN.detect` (2.6.0) finds with the same weights,
its default thresholds and pyramid factor. Only parts of the pyramid that may show the faces are searched.
Crops read one summed-area table, so the cost of a crop does not depend on the size of the image.
"""

from __future__ import annotations

from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from training.models.boxes import Suppression, regressed, square, suppress
from training.models.summed_area import cells, crops, summed_area_table


class _SwapFlatten(nn.Module):
    """[N,C,H,W] -> [N, W*H*C], the order the published dense layers were trained in."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


class _Net(nn.Module):
    """A trunk and one head: channel 0 is the score in (0, 1), 1-4 move the box."""

    def __init__(self, trunk: OrderedDict[str, nn.Module], head: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.trunk = nn.Sequential(trunk)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        answer = self.head(self.trunk(x))
        return torch.cat([answer[:, :1].sigmoid(), answer[:, 1:]], dim=1)

    def load_published(self, state: dict[str, Tensor], classes: str, box: str) -> None:
        """Take facenet-pytorch's state; `classes` and `box` name the layers of its two heads.

        A softmax over two classes is a sigmoid of their difference, so the head keeps one score row. The
        published landmarks are skipped.
        """
        with torch.no_grad():
            for kind, target in (("weight", self.head.weight), ("bias", self.head.bias)):
                either = state[f"{classes}.{kind}"]
                assert target is not None
                target.copy_(torch.cat([either[1:] - either[:1], state[f"{box}.{kind}"]]))
        self.trunk.load_state_dict({name: state[name] for name in self.trunk.state_dict()})


def _net(*layers: tuple[int, int, int], dense: tuple[int, int] | None = None) -> _Net:
    """A net with facenet-pytorch's names.

    layers: channels and kernel of each convolution, and the size of the pooling after it, 0 without. dense:
    inputs and outputs of the dense layer that follows.
    """
    trunk: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, (wider, kernel, pool) in enumerate(layers, start=1):
        trunk[f"conv{number}"] = nn.Conv2d(channels, wider, kernel)
        trunk[f"prelu{number}"] = nn.PReLU(wider)
        if pool:
            trunk[f"pool{number}"] = nn.MaxPool2d(pool, 2, ceil_mode=True)
        channels = wider
    if dense is None:
        return _Net(trunk, nn.Conv2d(channels, 5, 1))
    trunk["flatten"] = _SwapFlatten()
    trunk[f"dense{len(layers) + 1}"] = nn.Linear(*dense)
    trunk[f"prelu{len(layers) + 1}"] = nn.PReLU(dense[1])
    return _Net(trunk, nn.Linear(dense[1], 5))


def published_weights(net: str) -> dict[str, Tensor]:
    """State of "pnet", "rnet" or "onet" of the installed facenet-pytorch, which is not imported.

    Importing it needs torchvision, and its pins (torch < 2.3) forbid a plain install beside a current torch.
    Raises `FileNotFoundError`, which names the command that installs it.
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
    """The cascade around known faces: P-net, R-net and O-net, each followed by suppression."""

    FACTOR = 0.709  # from one pyramid level to the next
    LEVELS = 20  # down to a cell of 12,000 px
    CELL = 12  # P-net's receptive field, and so the smallest face it can see
    P_THRESHOLD = 0.6
    R_THRESHOLD = 0.7
    O_THRESHOLD = 0.7
    FIELD = 24  # side in px of the part of a level around a face that P-net sees
    # Min and max ratio of a cell's side to the face's side on the levels that P-net sees. Candidates of other
    # levels do not last.
    MIN_CELL = 0.35
    MAX_CELL = 2.2
    # Max candidates of R-net and O-net, the best ones: bounds time and memory for a hostile image.
    R_CROPS = 1024
    O_CROPS = 512
    APART = 1 << 18  # px, more than any image has
    __constants__ = (
        "FACTOR",
        "LEVELS",
        "CELL",
        "P_THRESHOLD",
        "R_THRESHOLD",
        "O_THRESHOLD",
        "FIELD",
        "MIN_CELL",
        "MAX_CELL",
        "R_CROPS",
        "O_CROPS",
        "APART",
    )

    def __init__(self) -> None:
        super().__init__()
        self.p_net = _net((10, 3, 2), (16, 3, 0), (32, 3, 0))
        self.r_net = _net((28, 3, 3), (48, 3, 3), (64, 2, 0), dense=(576, 128))
        self.o_net = _net((32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0), dense=(1152, 256))
        self.within_level = Suppression(0.5)
        self.across_levels = Suppression(0.7)

    @classmethod
    def published(cls) -> Mtcnn:
        """The cascade with facenet-pytorch's weights, in eval mode and without gradients."""
        cascade = cls()
        cascade.p_net.load_published(published_weights("pnet"), "conv4_1", "conv4_2")
        cascade.r_net.load_published(published_weights("rnet"), "dense5_1", "dense5_2")
        cascade.o_net.load_published(published_weights("onet"), "dense6_1", "dense6_2")
        return cascade.eval().requires_grad_(False)

    def forward(self, image: Tensor, faces: Tensor, min_face_px: float) -> tuple[Tensor, Tensor]:
        """Find faces around `faces`; the best score comes first, boxes may reach beyond the image.

        image: uint8 [H,W,3] RGB; faces: float32 [N,4] xyxy px; min_face_px: of the pyramid, at least 12
        -> boxes float32 [M,4] xyxy px, scores float32 [M]. A face may have several boxes, or none.
        """
        height, width = image.shape[0], image.shape[1]
        whole = torch.tensor([width, height], device=image.device)
        face, level, scale = self.levels(faces, height, width, min_face_px)
        if face.shape[0] == 0:
            return faces[:0], faces[:0, 0]
        extent = (whole * scale[:, None] + 1).long()  # of the level, in its own pixels
        corner = self.corners(faces[face], scale, extent)
        steps = torch.minimum(
            corner[:, None] + torch.arange(self.FIELD, device=image.device)[None, :, None],
            extent[:, None] - 1,
        )
        x = cells(steps[:, :, 0], whole[:1], extent[:, :1])
        y = cells(steps[:, :, 1], whole[1:], extent[:, 1:])

        # Only the part of the image that P-net sees is summed up and searched.
        left, right = int(x.min().item()), int(x.max().item())
        top, bottom = int(y.min().item()), int(y.max().item())
        table = summed_area_table(image[top:bottom, left:right])
        limits = torch.tensor([left, top, right, bottom], device=image.device)

        answer = self.p_net(crops(table, x - left, y - top))
        boxes = self.propose(answer, corner, extent, scale, level)

        boxes, x, y = self.inside(boxes[: self.R_CROPS], limits, 24)
        answer = self.r_net(crops(table, x, y))
        passed = answer[:, 0] > self.R_THRESHOLD
        boxes, answer = boxes[passed], answer[passed]
        picked = self.across_levels(boxes, answer[:, 0])
        boxes = square(regressed(boxes[picked], answer[picked, 1:5], 1.0))

        boxes, x, y = self.inside(boxes[: self.O_CROPS], limits, 48)
        answer = self.o_net(crops(table, x, y))
        passed = answer[:, 0] > self.O_THRESHOLD
        boxes, answer = boxes[passed], answer[passed]
        boxes = regressed(boxes, answer[:, 1:5], 1.0)
        picked = suppress(boxes, answer[:, 0], 0.7, of_smaller=True)
        return boxes[picked], answer[picked, 0]

    def levels(
        self, faces: Tensor, height: int, width: int, min_face_px: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of face and level that P-net sees: faces int64 [F], levels int64 [F], scales float64 [F]."""
        number = torch.arange(self.LEVELS, device=faces.device)
        pyramid = torch.pow(self.FACTOR, number.double()) * (self.CELL / min_face_px)
        sides = (faces[:, 2:] - faces[:, :2]).amax(dim=1)
        share = self.CELL / pyramid / sides[:, None]
        seen = (share >= self.MIN_CELL) & (share <= self.MAX_CELL)
        at = (seen & (min(height, width) * pyramid >= self.CELL)).nonzero()
        return at[:, 0], at[:, 1], pyramid[at[:, 1]]

    def corners(self, faces: Tensor, scale: Tensor, extent: Tensor) -> Tensor:
        """First pixel of the level that P-net sees around each face: int64 [F,2], even as the stride is 2."""
        centre = (faces[:, :2] + faces[:, 2:]) / 2 * scale[:, None]
        corner = ((centre - self.FIELD / 2) / 2).round().long()
        return torch.minimum(corner, (extent - self.FIELD + 1) // 2).clamp(min=0) * 2

    def propose(self, answer: Tensor, corner: Tensor, extent: Tensor, scale: Tensor, level: Tensor) -> Tensor:
        """P-net's candidates from its answers [F,5,n,n]: square boxes float32 [N,4]."""
        at = (answer[:, 0] >= self.P_THRESHOLD).nonzero()
        field = at[:, 0]
        place = corner[field] + at[:, 1:].flip(1) * 2
        shown = (place + self.CELL <= extent[field] + 1).all(dim=1)
        at, field, place = at[shown], field[shown], place[shown]
        found = answer[field, :, at[:, 1], at[:, 2]]
        pixel = scale[field, None].float()
        boxes = torch.cat([((place + 1) / pixel).floor(), ((place + self.CELL) / pixel).floor()], dim=1)

        # Levels are moved far apart, so that suppression works within each level.
        picked = self.within_level(boxes + level[field, None] * self.APART, found[:, 0])
        picked = picked[self.across_levels(boxes[picked], found[picked, 0])]
        return square(regressed(boxes[picked], found[picked, 1:], 0.0))

    def inside(self, boxes: Tensor, limits: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes that overlap `limits` (xyxy), and the cells of their crops of `size` px."""
        pixels = boxes.long()  # counted from 1 at the first pixel, as the weights were trained
        start = torch.maximum(pixels[:, :2] - 1, limits[:2])
        end = torch.minimum(pixels[:, 2:], limits[2:])
        shown = (end > start).all(dim=1)
        start, length = start[shown] - limits[:2], (end - start)[shown]
        steps = torch.arange(size, device=boxes.device)[None]
        count = torch.full([1, 1], size, device=boxes.device)
        x = cells(steps, length[:, :1], count) + start[:, :1, None]
        y = cells(steps, length[:, 1:], count) + start[:, 1:, None]
        return boxes[shown], x, y
