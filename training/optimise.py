"""Optimisers, learning rates, averaged weights, sharpness-aware minimisation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from training.config import OptimiserConfig, RunConfig


def make_optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only: biases and norms keep their scale."""
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=config.momentum, nesterov=True)
    # Adam's weight decay is added to the gradient, AdamW's is not (Loshchilov and Hutter, 2019).
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, config.learning_rate)


def learning_rate(epoch: float, config: RunConfig) -> float:
    """Linear warm-up, then cosine to zero at the last epoch, or a constant factor for every whole epoch."""
    optimiser = config.optimiser
    peak, warmup = optimiser.learning_rate, optimiser.warmup_epochs
    if epoch < warmup:
        return peak * (epoch + 0.01) / (warmup + 0.01)
    if optimiser.schedule == "exponential":
        return float(peak * optimiser.decay ** math.floor(epoch))
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (config.epochs - warmup)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Update the exponential moving average of weights and buffers. It follows faster in the first steps."""
    decay = min(decay, (step + 1) / (step + 10))
    means, currents = list(average.state_dict().values()), list(network.state_dict().values())
    floating = [index for index, mean in enumerate(means) if mean.is_floating_point()]
    torch._foreach_lerp_([means[i] for i in floating], [currents[i] for i in floating], 1 - decay)
    for index in set(range(len(means))) - set(floating):
        means[index].copy_(currents[index])


@contextmanager
def at_sharpest(network: nn.Module, radius: float) -> Iterator[None]:
    """Move the weights by `radius` along their gradient, towards a higher loss, and restore them at exit.

    Sharpness-aware minimisation (Foret et al., 2021): the gradient at the moved weights is applied to the
    restored weights.
    """
    with torch.no_grad():
        moved = [p for p in network.parameters() if p.grad is not None]
        gradients = [p.grad for p in moved if p.grad is not None]
        length = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
        before = [p.clone() for p in moved]
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.add_(gradient, alpha=float(radius / (length + 1e-12)))
    yield
    with torch.no_grad():
        for parameter, value in zip(moved, before, strict=True):
            parameter.copy_(value)
