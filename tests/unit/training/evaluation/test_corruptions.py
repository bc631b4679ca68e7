"""Each corruption does what its name says, and a greater strength changes more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import tiny_config
from training.datasets.faces import LabelledFaces, PixelPictures, one_hot
from training.evaluation import corruptions
from training.evaluation.corruptions import CORRUPTIONS, Corruption, measure_robustness
from training.models import build


@pytest.fixture(scope="module")
def face(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [96,96,3]."""
    return np.asarray(Image.fromarray(astronaut).crop((168, 60, 280, 172)).resize((96, 96)))


def images_of(face: NDArray[np.uint8], channels: int) -> Tensor:
    pictures = PixelPictures(np.stack([face, face[:, ::-1]]))
    return torch.from_numpy(pictures.read(np.arange(2), size=96, channels=channels)).float() / 255


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_more_strength_changes_more(corruption: Corruption, channels: int, face: NDArray[np.uint8]) -> None:
    images = images_of(face, channels)
    before, distances = images.clone(), []
    for strength in corruption.strengths:
        torch.manual_seed(0)
        corrupted = corruption.apply(images, strength)
        assert corrupted.shape == images.shape
        assert corrupted.min() >= 0
        assert corrupted.max() <= 1
        distances.append((corrupted - images).abs().mean().item())
    assert torch.equal(images, before)
    assert distances == sorted(distances)
    assert 0 < distances[0] < 0.6 * distances[-1]


def test_cover_hides_the_given_share_of_the_area() -> None:
    covered = corruptions.cover(torch.ones(4, 1, 48, 48), 0.25)
    assert (covered == 0.5).float().mean(dim=(1, 2, 3)).tolist() == [0.25] * 4


def test_shrink_keeps_no_detail_beyond_its_resolution() -> None:
    shrunk = corruptions.shrink(torch.rand(1, 1, 48, 48), 8)
    again = corruptions.shrink(shrunk, 8)
    assert (shrunk - shrunk.mean()).abs().mean() < 0.1  # little of the noise remains
    assert (again - shrunk).abs().mean() < 0.05


def test_turn_rotates_neighbouring_images_to_opposite_sides() -> None:
    bar = torch.zeros(2, 1, 48, 48)
    bar[:, :, :24, 22:26] = 1
    left, right = corruptions.turn(bar, 45)
    torch.testing.assert_close(left.flip(2), right, atol=0.6, rtol=0)
    columns = torch.arange(48).float()
    assert (left.sum(dim=(0, 1)) @ columns) / left.sum() != pytest.approx(
        float((right.sum(dim=(0, 1)) @ columns) / right.sum()), abs=5
    )


def test_the_table_has_every_corruption_at_every_strength_and_is_reproducible(
    face: NDArray[np.uint8],
) -> None:
    torch.manual_seed(0)
    network = build(tiny_config().network, emotions=8, label_emotions=0)
    labels = np.array([*[1] * 8, -1, 0])
    faces = LabelledFaces(
        PixelPictures(np.stack([np.roll(face, shift, axis=1) for shift in range(10)])),
        names=np.arange(10).astype(str),
        labels=labels,
        distributions=one_hot(labels, len(EMOTIONS)),
        majority=labels,
        group=np.arange(10),
    )
    table = measure_robustness(network, faces, temperature=1.0, threshold=0.0)
    assert [(row.corruption, row.strength) for row in table] == [
        (c.name, s) for c in CORRUPTIONS for s in c.strengths
    ]
    assert {row.accuracy.samples for row in table} == {9}  # the row without a label is skipped
    assert {row.certain for row in table} == {1.0}
    assert table == measure_robustness(network, faces, temperature=1.0, threshold=0.0)
