"""Optimisers, learning rates, averaged weights, sharpness-aware minimisation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import nn

from training.config import OptimiserConfig, RunConfig

# Their weights are scales of channels.
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def make_optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only: biases and norms keep their scale."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            decays = name == "weight" and not isinstance(module, NORMS)
            (decayed if decays else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=config.momentum, nesterov=True)
    # Adam's weight decay is added to the gradient, AdamW's is not (Loshchilov and Hutter, 2019).
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, config.learning_rate)


def learning_rate(epoch: float, config: RunConfig, spent: float = 0.0) -> float:
    """Linear warm-up, then cosine to zero at the last epoch, or a constant factor for every whole epoch.

    spent: share of the time of the run. The cosine follows it if it is ahead of the epochs.
    """
    optimiser = config.optimiser
    peak, warmup = optimiser.learning_rate, optimiser.warmup_epochs
    if epoch < warmup:
        return peak * (epoch + 0.01) / (warmup + 0.01)
    if optimiser.schedule == "exponential":
        return float(peak * optimiser.decay ** math.floor(epoch))
    progress = max((epoch - warmup) / (config.epochs - warmup), min(spent, 1.0))
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Update the exponential moving average of weights and buffers. It follows faster in the first steps."""
    decay = min(decay, (step + 1) / (step + 10))
    means, currents = list(average.state_dict().values()), list(network.state_dict().values())
    floating = [index for index, mean in enumerate(means) if mean.is_floating_point()]
    torch._foreach_lerp_([means[i] for i in floating], [currents[i] for i in floating], 1 - decay)
    for index in set(range(len(means))) - set(floating):
        means[index].copy_(currents[index])


def average_statistics(fabric: Fabric, *networks: nn.Module) -> None:
    """Give all processes the mean of their batch-norm statistics. Weights are already equal."""
    for network in networks:
        for statistic in network.buffers():
            if statistic.is_floating_point():
                mean = fabric.all_reduce(statistic, reduce_op="mean")
                assert isinstance(mean, torch.Tensor)
                statistic.copy_(mean)


@contextmanager
def sam_perturbation(network: nn.Module, radius: float) -> Iterator[None]:
    """Move weights by `radius` along the gradient; restore them on exit (SAM).

    Sharpness-aware minimisation (Foret et al., 2021): the gradient at the moved weights is applied to the
    restored weights. Statistics of batch norm are restored too, because those of the moved weights mean
    nothing.
    """
    with torch.no_grad():
        moved = [p for p in network.parameters() if p.grad is not None]
        gradients = [p.grad for p in moved if p.grad is not None]
        length = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
        restored = [*moved, *network.buffers()]
        before = [tensor.clone() for tensor in restored]
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.add_(gradient, alpha=float(radius / (length + 1e-12)))
    yield
    with torch.no_grad():
        for tensor, value in zip(restored, before, strict=True):
            tensor.copy_(value)
