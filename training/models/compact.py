"""`compact`: ExpressNet-MoE in a size that suits CPUs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import CompactConfig
from training.models.backbones import PUBLISHED
from training.models.batch_norm import recalibrate_batch_norm
from training.models.blocks import ConvNormAct, Residual
from training.models.efficientnet_lite import EfficientNetLite
from training.models.face_mobilenet import FaceMobileNet
from training.models.face_resnet import FaceResNet
from training.models.mixture import MixtureOfExperts
from training.models.outputs import Network, Outputs, head


def standardise(images: Tensor) -> Tensor:
    """Each image to zero mean and unit deviation, so that exposure and contrast do not matter. [N,1,H,W]."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = (images - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    # The floor keeps a flat image flat instead of blowing up its noise.
    return (images - mean) / deviation.clamp(min=0.02)


class LargeKernelExtractor(nn.Sequential):
    """Global view: kernels 15, 9, 7 and 5, few channels: [N,1,48,48] -> [N,width*8]."""

    def __init__(self, width: int) -> None:
        super().__init__(
            ConvNormAct(1, width, 15, stride=2),
            ConvNormAct(width, width * 2, 9, stride=2),
            ConvNormAct(width * 2, width * 4, 7, stride=2),
            ConvNormAct(width * 4, width * 8, 5),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


class SmallKernelExtractor(nn.Sequential):
    """Local detail: 3x3 kernels with pooling between: [N,1,48,48] -> [N,width*8]."""

    def __init__(self, width: int) -> None:
        super().__init__(
            ConvNormAct(1, width, 3, stride=2),
            ConvNormAct(width, width * 2, 3),
            nn.MaxPool2d(2),
            ConvNormAct(width * 2, width * 4, 3),
            nn.MaxPool2d(2),
            ConvNormAct(width * 4, width * 8, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


class ResidualExtractor(nn.Sequential):
    """Local detail by more layers: a 3x3 convolution and a residual block per width.

    [N,1,48,48] -> [N,widths[-1]]. The first width has only a convolution: at full size, layers cost most.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = [ConvNormAct(1, widths[0], 3)]
        for narrow, wide in itertools.pairwise(widths):
            layers += [ConvNormAct(narrow, wide, 3, stride=2), Residual(wide, wide)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class CompactNetwork(Network):
    """The compact network. images: float [N,1,48,48], grey, in [0, 1] -> `Outputs`.

    As in the paper, one mixture gets the global features. The other gets the local features, fused with those
    of the optional backbone. The head gets both answers. Without large kernels there are no global features;
    the gates of their mixture are then zeros.
    """

    size = 48
    channels = 1

    def __init__(self, config: CompactConfig, emotions: int, label_emotions: int) -> None:
        super().__init__()
        width, features = config.extractor_width, config.features
        self.large = LargeKernelExtractor(width) if config.large_kernels else None
        self.small: nn.Sequential
        if config.residual_widths is None:
            self.small, local = SmallKernelExtractor(width), width * 8
        else:
            self.small, local = ResidualExtractor(config.residual_widths), config.residual_widths[-1]
        self.backbone: EfficientNetLite | FaceMobileNet | FaceResNet | None = None
        self.backbone_size, self.input_std = config.backbone_size or 0, 1.0
        if config.backbone_size:
            if config.backbone == "face_resnet":
                self.backbone = FaceResNet(config.backbone_blocks)
            elif config.backbone == "face_mobilenet":
                self.backbone = FaceMobileNet(config.backbone_blocks)
            else:
                self.backbone = EfficientNetLite(
                    1, width=config.backbone_width, depths=config.backbone_depths
                )
            self.input_std = PUBLISHED[config.backbone].input_std or 1.0
            local += self.backbone.features
        options = config.model_dump(include={"experts", "top_k", "renormalise"})
        if config.large_kernels:
            self.project_large = nn.Sequential(nn.Linear(width * 8, features), nn.ReLU())
            self.mixture_global = MixtureOfExperts(features, features, **options)
        self.fuse = nn.Sequential(nn.Linear(local, features), nn.ReLU())
        self.mixture_fused = MixtureOfExperts(features, features, **options)
        self.dropout = nn.Dropout(config.dropout)
        mixed = 2 * features if config.large_kernels else features
        self.main_head = head(mixed, emotions)
        self.label_head = head(mixed, label_emotions)

    def forward(self, images: Tensor) -> Outputs:
        images = standardise(images)
        local = self.small(images)
        if self.backbone is not None:
            local = torch.cat([local, self.backbone(self.enlarged(images))], dim=1)
        mixed, weights, scores = self.mixture_fused(self.dropout(self.fuse(local)))
        if self.large is not None:
            whole = self.large(images)
            mixed_global, weights_global, scores_global = self.mixture_global(
                self.dropout(self.project_large(whole))
            )
            mixed, pooled = torch.cat([mixed_global, mixed], dim=1), torch.cat([whole, local], dim=1)
        else:
            weights_global, scores_global, pooled = torch.zeros_like(weights), torch.zeros_like(scores), local
        joined = self.dropout(mixed)
        return Outputs(
            logits=self.main_head(joined),
            label_logits=self.label_head(joined),
            weights=torch.stack([weights_global, weights], dim=1),
            scores=torch.stack([scores_global, scores], dim=1),
            pooled=pooled,
        )

    def enlarged(self, images: Tensor) -> Tensor:
        """Images as in the backbone's pretraining: larger, with its standard deviation."""
        size = [self.backbone_size, self.backbone_size]
        images = images * self.input_std
        return functional.interpolate(images, size=size, mode="bilinear", align_corners=False)

    def gradcam_layer(self) -> nn.Module:
        if self.backbone is not None:
            return self.backbone[self.backbone.fine]
        return self.small[-3]  # before the pooling

    @torch.no_grad()
    def recalibrate_batch_norm(self, images: Tensor) -> None:
        if isinstance(self.backbone, FaceMobileNet | FaceResNet):
            recalibrate_batch_norm(self.backbone, self.enlarged(standardise(images)))
