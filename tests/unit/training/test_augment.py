"""Augmentation: other photographs of the same face."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.augment import augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halves(count: int, dim: int) -> Tensor:
    """Images that are bright in the first half along one dimension and dark in the second."""
    images = torch.full((count, 1, 48, 48), 0.1)
    images.narrow(dim, 0, 24).fill_(0.9)
    return images


def contrast(images: Tensor, dim: int) -> Tensor:
    """Mean of the first half less mean of the second, per image."""
    return images.narrow(dim, 0, 24).mean(dim=(1, 2, 3)) - images.narrow(dim, 24, 24).mean(dim=(1, 2, 3))


@pytest.mark.parametrize("count", [1, 7])
def test_it_keeps_shape_type_and_range(count: int) -> None:
    images = torch.rand(count, 1, 48, 48, generator=seeded())
    before = images.clone()
    changed = augment(images, seeded())
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert changed.isfinite().all()
    assert (changed >= 0).all()
    assert (changed <= 1).all()
    assert torch.equal(images, before), "the data set itself must not change"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extremes_stay_finite(value: float) -> None:
    changed = augment(torch.full((16, 1, 48, 48), value), seeded())
    assert changed.isfinite().all()
    assert ((changed >= 0) & (changed <= 1)).all()


def test_the_generator_decides_all_of_it() -> None:
    images = torch.rand(4, 1, 48, 48, generator=seeded())
    torch.manual_seed(1)
    first = augment(images, seeded(5))
    torch.manual_seed(2)
    assert torch.equal(augment(images, seeded(5)), first)
    assert not torch.equal(augment(images, seeded(6)), first)


def test_every_image_is_changed_in_its_own_way() -> None:
    images = torch.rand(1, 1, 48, 48, generator=seeded()).expand(6, 1, 48, 48)
    changed = augment(images, seeded())
    for index in range(1, 6):
        assert not torch.allclose(changed[0], changed[index], atol=0.05)


def test_about_half_are_mirrored() -> None:
    mirrored = (contrast(augment(halves(400, 3), seeded()), 3) < 0).float().mean()
    assert 0.4 < mirrored < 0.6


def test_none_is_turned_upside_down() -> None:
    assert (contrast(augment(halves(400, 2), seeded()), 2) > 0).all()


def test_about_half_lose_a_part_of_at_most_a_sixth() -> None:
    # A fine pattern everywhere: only the occluding rectangle is flat but for faint noise.
    pattern = (torch.arange(48) // 6 % 2).float()
    checks = (pattern[:, None] != pattern[None, :]).float() * 0.8 + 0.1
    changed = augment(checks.expand(300, 1, 48, 48), seeded())
    flat = (changed - changed.mean(dim=(2, 3), keepdim=True)).abs() < 0.12
    # Edges of the pattern pass through grey too, but thinly: a 5 x 5 patch of grey is occlusion.
    patches = torch.nn.functional.avg_pool2d(flat.float(), 5, stride=1) >= 0.99
    occluded = patches.flatten(1).any(dim=1).float().mean()
    assert 0.25 < occluded < 0.75
    assert patches.float().mean(dim=(1, 2, 3)).max() < 0.2
