"""Pictures on a device: kept there, or read one step ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit.training.made_up import noise
from training import images
from training.datasets.faces import Ints, PixelPictures
from training.images import Images, in_order
from training.models import Network

CPU = torch.device("cpu")


class Grey(Network):
    size, channels = 48, 1


class Colour(Network):
    size, channels = 24, 3


@pytest.fixture
def pictures() -> PixelPictures:
    return PixelPictures(np.stack([noise(seed) for seed in range(6)]))


@pytest.mark.parametrize("network", [Grey(), Colour()], ids=["grey", "colour"])
@pytest.mark.parametrize("keep", [True, False])
def test_steps_have_their_rows_in_order(keep: bool, network: Network, pictures: PixelPictures) -> None:
    held = Images(pictures, network, CPU, keep=keep)
    assert (held.kept is not None) == keep
    order = torch.tensor([[3, 1], [0, 2], [5, 4]])
    found = list(held.steps(order))
    assert [rows.tolist() for rows, _ in found] == order.tolist()
    for rows, floats in found:
        expected = pictures.read(rows.numpy(), size=network.size, channels=network.channels)
        assert torch.equal(floats, torch.from_numpy(expected).float() / 255)


def test_kept_pictures_are_read_once(pictures: PixelPictures, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counting(self: PixelPictures, rows: Ints, *, size: int, channels: int) -> np.ndarray:
        read.extend(rows.tolist())
        return self.pixels[rows][:, None]

    monkeypatch.setattr(PixelPictures, "read", counting)
    held = Images(pictures, Grey(), CPU, keep=True)
    for _ in range(3):
        list(held.steps(in_order(6, 4)))
    assert read == list(range(6))


def test_pictures_that_do_not_fit_are_not_kept(
    pictures: PixelPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CPU_LIMIT_BYTES", 6 * 48 * 48 - 1)
    assert Images(pictures, Grey(), CPU, keep=True).kept is None


def test_a_gpu_keeps_half_of_its_free_memory_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert images.limit_bytes(torch.device("cuda")) == 500
