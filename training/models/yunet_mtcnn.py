"""YuNet's faces in MTCNN's boxes, for data that were cropped by MTCNN.

YuNet finds faces in one pass. MTCNN's cascade runs only around these faces, at a fraction of its full cost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.boxes import overlaps
from training.models.mtcnn import Mtcnn
from training.models.yunet import YuNet


class YuNetMtcnn(nn.Module):
    """Finds the faces that YuNet or MTCNN is sure of, among YuNet's candidates. Landmarks are YuNet's."""

    # MTCNN's min face is its smallest window, and its boxes may be smaller than the window.
    SMALLER = 0.75
    FACES = 256  # max faces that the cascade runs around, the best ones: bounds time for a hostile image
    # Intersection over union, within the image, above which two boxes are of one face.
    OVERLAP = 0.3
    __constants__ = ("SMALLER", "FACES", "OVERLAP")

    def __init__(self, yunet: YuNet, mtcnn: Mtcnn) -> None:
        super().__init__()
        self.yunet = yunet
        self.mtcnn = mtcnn

    @classmethod
    def published(cls) -> YuNetMtcnn:
        """With libfacedetection's and facenet-pytorch's weights, in eval mode and without gradients."""
        return cls(YuNet.published(), Mtcnn.published()).eval()

    def forward(self, image: Tensor, min_face_px: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find faces; the best score comes first, boxes may reach beyond the image.

        image: uint8 [H,W,3] RGB; min_face_px: float32 [1], taken as 12 if lower or not a number; threshold:
        float32 [1], min score of YuNet or MTCNN
        -> boxes float32 [N,4] xyxy px, from MTCNN if its score reaches the threshold, else from YuNet; scores
        float32 [N], the higher of both; landmarks float32 [N,5,2] px: eyes, nose, mouth.
        """
        smallest = self.yunet.smallest(min_face_px)
        anything = torch.zeros_like(threshold)
        boxes, scores, landmarks = self.yunet.find(image, smallest, smallest * self.SMALLER, anything)
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
        scores = torch.where(sides >= smallest, scores, torch.zeros_like(scores))
        found, sure = self.mtcnn(image, boxes[: self.FACES], smallest)
        found, sure = found[sure >= threshold], sure[sure >= threshold]
        if found.shape[0] > 0:
            shared = overlaps(within(boxes, image), within(found, image))
            # Each box of the cascade belongs to the face that it overlaps most. The best box is used.
            owned = (shared == shared.amax(dim=0)) & (shared > self.OVERLAP)
            surest, index = (owned * sure).max(dim=1)
            boxes = torch.where(surest[:, None] > 0, found[index], boxes)
            scores = torch.maximum(scores, surest)
        order = scores.argsort(stable=True, dim=0, descending=True)
        order = order[scores[order] >= threshold]
        return boxes[order], scores[order], landmarks[order]


def within(boxes: Tensor, image: Tensor) -> Tensor:
    """Boxes float32 [N,4], clipped to the image [H,W,3]."""
    height, width = image.shape[0], image.shape[1]
    return torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], dim=2).flatten(1)
