"""The order of rows in each epoch, and the emotions that fit a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import tiny_config
from training.datasets.faces import Dataset, LabelledFaces, PixelPictures, one_hot
from training.rows import epoch_order, refuse_other_emotions, seed_of


def test_each_epoch_takes_every_row_once_in_another_order() -> None:
    emotion = torch.arange(10) % 3
    first, second = (epoch_order(emotion, tiny_config(), epoch) for epoch in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    assert epoch_order(emotion, tiny_config(), 0).tolist() == first.tolist()


def test_another_seed_has_other_orders_in_all_epochs() -> None:
    emotion = torch.zeros(100, dtype=torch.int64)
    orders = {
        tuple(epoch_order(emotion, tiny_config(seed=seed), epoch).tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_every_process_and_order_has_its_own_seed() -> None:
    seeds = {
        seed_of(seed, epoch, process) for seed in range(3) for epoch in range(3) for process in (None, 0, 1)
    }
    assert len(seeds) == 27


@pytest.mark.parametrize(("power", "share"), [(1.0, 1 / 3), (0.5, 0.2)])
def test_balanced_sampling_draws_rare_emotions_more_often(power: float, share: float) -> None:
    """900 rows of one emotion, 81 of a second, and 19 without an emotion, which count as a third emotion.

    By hand, the share of the second at power 0.5 is sqrt(81) / (sqrt(900) + sqrt(81) + sqrt(19)), about 0.2.
    """
    emotion = torch.tensor([0] * 900 + [1] * 81 + [-1] * 19)
    order = epoch_order(emotion, tiny_config(balanced_sampling=power), 0)
    assert (emotion[order] == 1).float().mean() == pytest.approx(share, abs=0.05)


def test_rows_of_a_set_with_more_weight_are_drawn_more_often() -> None:
    weights = torch.tensor([1.0] * 500 + [3.0] * 500)
    order = epoch_order(torch.zeros(1000, dtype=torch.int64), tiny_config(), 0, weights)
    assert len(order) == 1000
    assert (order >= 500).float().mean() == pytest.approx(0.75, abs=0.05)


def test_emotions_that_a_network_does_not_answer_are_named() -> None:
    labels = np.arange(8)
    rows = LabelledFaces(
        PixelPictures(np.zeros((8, 48, 48), np.uint8)),
        labels.astype(str),
        labels,
        one_hot(labels),
        labels,
        labels,
    )
    eight = Dataset("eight", EMOTIONS, (), rows, {}, ())
    refuse_other_emotions(EMOTIONS, eight)
    with pytest.raises(ValueError, match="answers 7 emotions, and eight has 8: the network lacks contempt"):
        refuse_other_emotions(EMOTIONS[:7], eight)
