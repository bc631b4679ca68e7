"""Augmentation changes a face like another photograph of the same face."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.augment import Augmentation, Mixing
from training.config import AugmentConfig

NO_CHANGES = {"mirror": 0, "pose": 0, "light": 0, "blur": 0, "noise": 0, "jpeg": 0, "occlusion": 0}


def only(**shares: float) -> Augmentation:
    return Augmentation(AugmentConfig.model_validate(NO_CHANGES | shares))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def halves(count: int, dim: int) -> Tensor:
    """Images that are bright in the first half along one dimension and dark in the second."""
    images = torch.full((count, 1, 48, 48), 0.1)
    images.narrow(dim, 0, 24).fill_(0.9)
    return images


def contrast(images: Tensor, dim: int) -> Tensor:
    """Mean of the first half minus mean of the second half, per image."""
    return images.narrow(dim, 0, 24).mean(dim=(1, 2, 3)) - images.narrow(dim, 24, 24).mean(dim=(1, 2, 3))


@pytest.mark.parametrize(("count", "channels", "side"), [(1, 1, 48), (7, 1, 48), (3, 3, 64)])
def test_augmentation_keeps_shape_type_and_range(count: int, channels: int, side: int) -> None:
    images = torch.rand(count, channels, side, side)
    before = images.clone()
    for _ in range(5):
        changed = Augmentation(AugmentConfig())(images)
        assert changed.shape == images.shape
        assert changed.dtype == torch.float32
        assert changed.isfinite().all()
        assert (changed >= 0).all()
        assert (changed <= 1).all()
    assert torch.equal(images, before), "the data set itself must not change"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extremes_stay_finite(value: float) -> None:
    changed = Augmentation(AugmentConfig())(torch.full((16, 1, 48, 48), value))
    assert changed.isfinite().all()
    assert ((changed >= 0) & (changed <= 1)).all()


def test_shares_of_zero_change_nothing() -> None:
    images = torch.rand(5, 1, 48, 48)
    assert torch.allclose(only()(images), images, atol=1e-6)


def test_a_seed_repeats_the_changes() -> None:
    images, augmentation = torch.rand(8, 1, 48, 48), Augmentation(AugmentConfig())
    torch.manual_seed(5)
    first = augmentation(images)
    torch.manual_seed(5)
    assert torch.equal(augmentation(images), first)
    assert not torch.equal(augmentation(images), first)


def test_every_image_is_changed_in_its_own_way() -> None:
    images = torch.rand(1, 1, 48, 48).expand(6, 1, 48, 48)
    changed = Augmentation(AugmentConfig(pose=1.0, light=1.0))(images)
    for index in range(1, 6):
        assert not torch.allclose(changed[0], changed[index], atol=0.05)


def test_about_half_of_the_images_are_mirrored() -> None:
    mirrored = (contrast(Augmentation(AugmentConfig())(halves(400, 3)), 3) < 0).float().mean()
    assert 0.4 < mirrored < 0.6


def test_no_image_is_turned_upside_down() -> None:
    assert (contrast(Augmentation(AugmentConfig())(halves(400, 2)), 2) > 0).all()


@pytest.mark.parametrize("kind", ["pose", "light", "blur", "noise", "jpeg", "occlusion"])
def test_each_kind_changes_about_its_share_of_images(kind: str) -> None:
    images = torch.rand(200, 1, 48, 48)
    changed = (only(**{kind: 0.5})(images) - images).abs().flatten(1).amax(dim=1) > 1e-4
    # Pose, light and blur are two changes each, so they change somewhat more images.
    assert 0.4 < changed.float().mean() < 0.75


def test_occlusion_covers_about_a_fifth_at_most() -> None:
    images = torch.rand(200, 1, 48, 48)
    covered = (only(occlusion=1.0)(images) != images).float().mean(dim=(1, 2, 3))
    assert covered.max() < 0.22
    assert covered.min() > 0.01


def mixing(**shares: float) -> Mixing:
    return Mixing(AugmentConfig.model_validate({"mixing_alpha": 1.0} | shares))


def test_mixup_mixes_images_and_targets_in_the_same_share() -> None:
    """All pixels of image k are k / 8, and its target is class k. A mixed target gives the mixed pixels."""
    images = (torch.arange(8) / 8).view(8, 1, 1, 1).expand(8, 1, 6, 6)
    mixed, targets = mixing(mixup=1.0)(images, torch.eye(8))
    assert torch.allclose(targets.sum(dim=1), torch.ones(8))
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), targets @ (torch.arange(8) / 8), atol=1e-6)
    assert not torch.allclose(mixed, images)


def test_cutmix_pastes_a_rectangle_and_mixes_targets_by_its_area() -> None:
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 20, 20)
    mixed, targets = mixing(cutmix=1.0)(images, torch.eye(8))
    for row in range(8):
        shares = torch.bincount(mixed[row].long().flatten(), minlength=8) / 400
        assert torch.allclose(shares, targets[row], atol=1e-6)
    assert torch.unique(images).numel() == 8, "the batch itself must not change"


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_target_sums_to_one_if_a_row_has_a_target(kind: str) -> None:
    targets = torch.eye(8)
    targets[3:] = 0
    for _ in range(20):
        _, mixed = mixing(**{kind: 1.0})(torch.rand(8, 1, 8, 8), targets)
        sums = mixed.sum(dim=1)
        assert torch.all((sums - 1).abs().lt(1e-5) | (sums == 0))


def test_mixing_changes_about_its_share_of_batches() -> None:
    images, targets = torch.rand(4, 1, 8, 8), torch.eye(4)
    mixer = mixing(mixup=0.3, cutmix=0.2)
    untouched = sum(torch.equal(mixer(images, targets)[0], images) for _ in range(400))
    assert 150 < untouched < 270
