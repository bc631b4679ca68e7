"""`paper`: ExpressNet-MoE (arXiv 2510.13493), layer by layer as its authors' notebooks build it.

docs/explanation/training.md lists what differs.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from training.config import PaperConfig
from training.models.backbones import Pixels
from training.models.mixture import MixtureOfExperts
from training.models.outputs import Network, Outputs, head
from training.models.resnet import ResNet50
from training.models.spectral import SameConv2d, SpectralConv2d

FEATURES = 512
# Channels and kernel of each layer.
GLOBAL_LAYERS = ((8, 75), (16, 50), (32, 25), (64, 15), (128, 9), (256, 3))
LOCAL_LAYERS = ((16, 15), (32, 7), (64, 5), (128, 3), (256, 3))
# From this kernel size, the frequency domain is faster on a CPU.
MIN_SPECTRAL_KERNEL = 9


class Extractor(nn.Sequential):
    """Convolution, ReLU, dropout, batch norm per layer, halving between: [N,3,S,S] -> [N,256,S',S']."""

    def __init__(self, layers: tuple[tuple[int, int], ...]) -> None:
        modules: list[nn.Module] = []
        channels = 3
        for index, (width, kernel) in enumerate(layers):
            if index:
                modules.append(nn.MaxPool2d(2))
            if kernel < MIN_SPECTRAL_KERNEL:
                modules.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            else:
                modules.append(SameConv2d(channels, width, kernel))
            # Keras' batch norm: epsilon 1e-3, averages that keep 0.99 of the past.
            modules += [
                nn.ReLU(),
                nn.Dropout(0.1),
                nn.BatchNorm2d(width, eps=1e-3, momentum=0.01),
            ]
            channels = width
        super().__init__(*modules)


class PaperNetwork(Network):
    """The paper's network. images: float [N,3,224,224] RGB in [0, 1] -> `Outputs`.

    One mixture gets the global features (kernels 75 to 3). The other gets the local features (kernels 15 to
    3), fused with ResNet-50's. The head gets both answers. The authors do not renormalise the gate's weights.
    They feed BGR pixels in [0, 1], and start from Keras' initialisation.
    """

    size = 224
    channels = 3

    def __init__(self, config: PaperConfig, emotions: int, label_emotions: int) -> None:
        super().__init__()
        self.pixels = Pixels(bgr=True)
        pretraining = config.backbone_pixels == "pretraining"
        self.backbone_pixels = Pixels.of("resnet50_keras") if pretraining else self.pixels
        self.large = Extractor(GLOBAL_LAYERS)
        self.project_large = nn.Sequential(
            nn.Flatten(), nn.Linear(7 * 7 * 256, FEATURES), nn.ReLU(), nn.Dropout(0.5)
        )
        self.small = Extractor(LOCAL_LAYERS)
        self.backbone = ResNet50()
        self.backbone_dropout = nn.Dropout(0.5)
        self.fuse = nn.Sequential(nn.Linear(256 + ResNet50.features, FEATURES), nn.ReLU(), nn.Dropout(0.5))
        self.mixture_global = MixtureOfExperts(FEATURES, FEATURES, renormalise=config.renormalise)
        self.mixture_fused = MixtureOfExperts(FEATURES, FEATURES, renormalise=config.renormalise)
        self.main_head = head(2 * FEATURES, emotions)
        self.label_head = head(2 * FEATURES, label_emotions)
        self.apply(_initialise_like_keras)

    def forward(self, images: Tensor) -> Outputs:
        pixels = self.pixels(images)
        whole, small = self.large(pixels), self.small(pixels).mean(dim=(2, 3))
        backbone = self.backbone(self.backbone_pixels(images))
        local = torch.cat([small, self.backbone_dropout(backbone)], dim=1)
        mixed_global, weights_global, scores_global = self.mixture_global(self.project_large(whole))
        mixed_fused, weights_fused, scores_fused = self.mixture_fused(self.fuse(local))
        joined = torch.cat([mixed_global, mixed_fused], dim=1)
        return Outputs(
            logits=self.main_head(joined),
            label_logits=self.label_head(joined),
            weights=torch.stack([weights_global, weights_fused], dim=1),
            scores=torch.stack([scores_global, scores_fused], dim=1),
            pooled=torch.cat([whole.mean(dim=(2, 3)), small, backbone], dim=1),
        )

    def gradcam_layer(self) -> nn.Module:
        return self.backbone.conv5


def _initialise_like_keras(module: nn.Module) -> None:
    """Glorot's uniform weights and no biases. The mixtures' experts have them already."""
    if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.numel():
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def with_spectra(network: PaperNetwork) -> PaperNetwork:
    """A copy for inference with precomputed spectra of large kernels. It cannot be trained."""
    frozen = copy.deepcopy(network).eval()
    for extractor in (frozen.large, frozen.small):
        size = PaperNetwork.size
        for index, module in enumerate(extractor):
            if isinstance(module, nn.MaxPool2d):
                size //= 2
            elif isinstance(module, SameConv2d):
                extractor[index] = SpectralConv2d(module, size)
    return frozen
