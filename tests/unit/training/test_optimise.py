from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from training.config import OptimiserConfig, RunConfig
from training.models import build
from training.models.mixture import MixtureOfExperts
from training.optimise import learning_rate, make_optimiser, sam_perturbation, update_average
from training.settings import preset

from .made_up import tiny_config


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = tiny_config(epochs=11, optimiser={"learning_rate": 0.4, "warmup_epochs": 1})
    rates = [learning_rate(epoch, config) for epoch in (0, 0.5, 1, 6, 11)]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2:] == pytest.approx([0.4, 0.2, 0.0])


def test_the_cosine_ends_with_the_time_of_the_run() -> None:
    config = tiny_config(epochs=11, optimiser={"learning_rate": 0.4, "warmup_epochs": 1})
    rates = [learning_rate(6, config, spent) for spent in (0.1, 0.75, 1, 1.1)]
    assert rates == pytest.approx([0.2, 0.2 * (1 - math.sqrt(0.5)), 0, 0])
    exponential = tiny_config(optimiser={"schedule": "exponential", "decay": 0.5, "warmup_epochs": 0})
    assert learning_rate(0.5, exponential, 0.9) == learning_rate(0.5, exponential)


def test_the_exponential_schedule_steps_once_per_epoch() -> None:
    config = tiny_config(
        epochs=9,
        optimiser={"schedule": "exponential", "decay": 0.5, "learning_rate": 0.8, "warmup_epochs": 0},
    )
    assert [learning_rate(epoch, config) for epoch in (0, 0.9, 1, 3)] == pytest.approx([0.8, 0.8, 0.4, 0.1])


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_norms_and_biases_do_not_decay(name: str, kind: type) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimiser = make_optimiser(network, OptimiserConfig(name=name, weight_decay=0.1))
    assert type(optimiser) is kind
    decayed, plain = optimiser.param_groups
    assert [p.ndim for p in decayed["params"]] == [4]
    assert [p.ndim for p in plain["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_biases_of_experts_do_not_decay() -> None:
    """They are a matrix, [experts, features]."""
    network = nn.Sequential(MixtureOfExperts(3, 5), nn.LayerNorm([2, 5]))
    decayed, plain = make_optimiser(network, OptimiserConfig()).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 5), (4, 3)]
    assert [tuple(p.shape) for p in plain["params"]] == [(4, 5), (4,), (2, 5), (2, 5)]


@pytest.mark.parametrize("name", ["attention", "compact"])
def test_every_parameter_is_optimised_once(name: str) -> None:
    network = build(
        RunConfig.model_validate({"network": {"name": name}}).network, emotions=8, label_emotions=7
    )
    optimised = [
        p for group in make_optimiser(network, OptimiserConfig()).param_groups for p in group["params"]
    ]
    assert sorted(map(id, optimised)) == sorted(map(id, network.parameters()))


def test_the_papers_rate_falls_before_the_first_epoch() -> None:
    """The authors' notebook logs 1e-4 * 0.95 in epoch 1."""
    config = preset("paper")
    rates = [learning_rate(epoch, config) for epoch in (0, 0.9, 1, 14)]
    assert rates == pytest.approx([9.5e-5, 9.5e-5, 9.025e-5, 1e-4 * 0.95**15])


def test_the_average_follows_weights_and_statistics() -> None:
    network, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    assert network.running_mean is not None
    assert network.num_batches_tracked is not None
    assert average.running_mean is not None
    with torch.no_grad():
        network.weight.fill_(3)
        network.running_mean.fill_(5)
        network.num_batches_tracked.fill_(7)
    update_average(average, network, step=10**6, decay=0.75)
    assert average.weight.tolist() == pytest.approx([1.5] * 2)
    assert average.running_mean.tolist() == pytest.approx([1.25] * 2)
    assert average.num_batches_tracked == 7


def test_the_average_follows_faster_in_the_first_steps() -> None:
    network, average = nn.Linear(1, 1), nn.Linear(1, 1)
    update_average(average, network, step=0, decay=0.999)
    assert torch.allclose(average.weight, network.weight, atol=0.21)


def test_sam_perturbation_moves_weights_along_the_gradient_and_back() -> None:
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 2.0]]))
    network.weight.grad = torch.tensor([[3.0, 4.0]])
    before = network.weight.detach().clone()
    with sam_perturbation(network, radius=0.5):
        assert network.weight.detach()[0].tolist() == pytest.approx([1 + 0.5 * 0.6, 2 + 0.5 * 0.8])
    assert torch.equal(network.weight, before)


def test_sam_perturbation_keeps_the_statistics_of_batch_norm() -> None:
    network = nn.BatchNorm1d(2)
    network(torch.rand(8, 2)).sum().backward()
    before = {name: value.clone() for name, value in network.named_buffers()}
    with sam_perturbation(network, radius=0.5):
        network(torch.rand(8, 2))
    for name, value in network.named_buffers():
        assert torch.equal(value, before[name]), name


def test_sharpness_aware_minimisation_prefers_a_flat_minimum() -> None:
    """Between two minima of the same depth, plain descent takes the near sharp one and SAM the flat one."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        sharp = 40 * (x + 0.1) ** 2
        flat = 0.5 * (x - 1.5) ** 2
        return torch.minimum(sharp, flat).sum()

    ends = {}
    for radius in (0.0, 0.6):
        network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(network.weight, 0.0)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.02)
        for _ in range(400):
            optimiser.zero_grad()
            loss(network.weight).backward()  # type: ignore[no-untyped-call]
            if radius:
                with sam_perturbation(network, radius):
                    optimiser.zero_grad()
                    loss(network.weight).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        ends[radius] = network.weight.item()
    assert ends[0.0] == pytest.approx(-0.1, abs=0.05)
    assert ends[0.6] > 0.5
    assert math.isfinite(ends[0.6])
