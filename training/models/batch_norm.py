"""Batch norms for published weights whose statistics are folded into their scale and shift."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def shifting(shift: Tensor, name: str) -> dict[str, Tensor]:
    """The state of a batch norm that adds `shift` [C] and does nothing else."""
    return {
        f"{name}.weight": torch.ones_like(shift),
        f"{name}.bias": shift,
        f"{name}.running_mean": torch.zeros_like(shift),
        f"{name}.running_var": torch.ones_like(shift),
    }


@torch.no_grad()
def recalibrate_batch_norm(network: nn.Module, images: Tensor) -> None:
    """Set the statistics of each batch norm from `images`, and undo the change by its scale and shift.

    Training with batch norm needs these statistics.
    """

    def measure(norm: nn.Module, given: tuple[Tensor], _answer: Tensor) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = given[0].mean(dim=(0, 2, 3))
        variance = given[0].var(dim=(0, 2, 3), unbiased=False)
        before = (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(norm.weight * (mean - norm.running_mean) / before)
        norm.weight.mul_((variance + norm.eps).sqrt() / before)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_hook(measure) for norm in norms]
    training = network.training
    network.eval()(images)
    network.train(training)
    for hook in hooks:
        hook.remove()
