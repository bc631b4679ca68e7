"""Random changes of training images, in batches on the device, by Kornia."""

from __future__ import annotations

import kornia.augmentation as kornia
import torch
from torch import Tensor, nn

from training.config import AugmentConfig


class Augmentation(nn.Module):
    """images: float [N,C,H,W] in [0, 1], C is 1 or 3 -> the same shape, each image is changed independently.

    Uses torch's global generator, so the same seed before a call gives the same changes.
    """

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()
        chances = (config.mirror, config.pose, config.light, config.blur, config.noise)
        self.changes = any((*chances, config.jpeg, config.occlusion))
        self.pose = kornia.AugmentationSequential(
            kornia.RandomHorizontalFlip(p=config.mirror),
            kornia.RandomAffine(
                degrees=12, translate=(0.07, 0.07), scale=(0.88, 1.14), p=config.pose, padding_mode="border"
            ),
            kornia.RandomPerspective(0.2, p=config.pose / 3),
        )
        self.capture = kornia.AugmentationSequential(
            kornia.RandomLinearIllumination((0.05, 0.3), p=config.light / 2),
            kornia.RandomGamma((0.6, 1.7), p=config.light),
            kornia.RandomGaussianBlur((5, 5), (0.3, 1.3), p=config.blur),
            kornia.RandomMotionBlur(3, 45.0, 0.5, p=config.blur / 2),
            kornia.RandomGaussianNoise(std=0.04, p=config.noise),
        )
        # JPEG is defined on colour images only.
        self.jpeg = kornia.RandomJPEG((25.0, 90.0), p=config.jpeg)
        self.occlusion = kornia.RandomErasing((0.02, 0.2), (0.4, 2.5), value=0.5, p=config.occlusion)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if not self.changes:
            return images  # Kornia takes as long to change none of them
        channels = images.shape[1]
        images = self.capture(self.pose(images)).clamp(0, 1)
        images = self.jpeg(images.expand(-1, 3, -1, -1).contiguous())[:, :channels]
        erased: Tensor = self.occlusion(images.clamp(0, 1))
        return erased


class Mixing(nn.Module):
    """mixup (Zhang et al., 2018) or cutmix (Yun et al., 2019) of a batch with itself in another order.

    images: float [N,C,H,W]; targets: float [N,K] each, mixed in the images' shares. If one of two mixed
    rows has no target, the other row's target is scaled to a sum of 1.
    """

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, images: Tensor, *targets: Tensor) -> tuple[Tensor, ...]:
        draw = torch.rand(()).item()
        if draw >= self.config.mixup + self.config.cutmix:
            return (images, *targets)
        alpha = torch.tensor(self.config.mixing_alpha)
        share = torch.distributions.Beta(alpha, alpha).sample().item()
        other = torch.randperm(len(images)).to(images.device)
        if draw < self.config.mixup:
            images = torch.lerp(images[other], images, share)
        else:
            images, share = _pasted(images, images[other], share)
        return (images, *(_mixed(target, target[other], share) for target in targets))


def _pasted(images: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
    """A rectangle of `others` on `images`, and the share of pixels that stayed as they were."""
    height, width = images.shape[2:]
    side = (1 - share) ** 0.5
    top, left = (
        int(torch.randint(0, length - int(side * length) + 1, ()).item()) for length in (height, width)
    )
    bottom, right = top + int(side * height), left + int(side * width)
    images = images.clone()
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


def _mixed(targets: Tensor, others: Tensor, share: float) -> Tensor:
    mixed = share * targets + (1 - share) * others
    total = mixed.sum(dim=1, keepdim=True)
    return mixed / torch.where(total > 0, total, 1)
