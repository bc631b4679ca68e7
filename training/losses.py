"""The training loss: main head, label head, balance of the experts, and teachers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from training.config import LossConfig
from training.models import Outputs
from training.models.mixture import load_balancing_loss


class TeacherLogits(NamedTuple):
    """Logits of the teachers' two heads: main float [N,C], label float [N,A]."""

    main: Tensor
    label: Tensor


class Objective(nn.Module):
    """(outputs for N images, their targets) -> loss, a scalar.

    main: float [N,C] and label: float [N,A]: target distributions of each head, rows of zeros without a
    target. teachers: their answers for the images, if there are teachers.
    counts: [C] sum of the training targets of each emotion, for the rebalancing losses.
    """

    counts: Tensor

    def __init__(self, config: LossConfig, counts: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("counts", counts.float())

    def forward(
        self, outputs: Outputs, main: Tensor, label: Tensor, teachers: TeacherLogits | None = None
    ) -> Tensor:
        config = self.config
        logits, weights = outputs.logits, None
        if config.rebalancing == "logit_adjusted":
            prior = self.counts.clamp(min=1) / self.counts.clamp(min=1).sum()
            logits = logits + config.logit_adjustment * prior.log()
        if config.rebalancing == "class_balanced":
            weights = class_balanced_weights(self.counts, config.class_balanced_beta)
        loss = soft_cross_entropy(logits, smoothed(main, config.label_smoothing), weights)
        loss = loss + config.label_head * soft_cross_entropy(
            outputs.label_logits, smoothed(label, config.label_head_smoothing)
        )
        if teachers is not None:
            temperature = config.distillation_temperature
            followed = soft_divergence(outputs.logits, teachers.main, temperature)
            followed = followed + config.label_head * soft_divergence(
                outputs.label_logits, teachers.label, temperature
            )
            loss = (1 - config.distillation) * loss + config.distillation * followed
        if config.load_balancing:
            for mixture in range(outputs.weights.shape[1]):
                loss = loss + config.load_balancing * load_balancing_loss(
                    outputs.weights[:, mixture], outputs.scores[:, mixture]
                )
        return loss


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Label smoothing (Szegedy et al., 2016) of distributions [N,C]; zero rows stay zero."""
    if not smoothing or not targets.shape[1]:
        return targets
    return (1 - smoothing) * targets + smoothing * targets.sum(dim=1, keepdim=True) / targets.shape[1]


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy to distributions [N,C] over the rows that have a target; weights: [C] per class."""
    if weights is not None:
        targets = targets * weights
    return -(targets * functional.log_softmax(logits, dim=1)).sum() / targets.sum().clamp(min=1)


def soft_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from a teacher at a temperature, scaled to keep the size of gradients."""
    if not logits.shape[1]:
        return logits.sum()
    return temperature**2 * functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def class_balanced_weights(counts: Tensor, beta: float) -> Tensor:
    """Inverse effective numbers (Cui et al., 2019), scaled to a mean of 1 over training rows. [C] -> [C]."""
    weights = (1 - beta) / (1 - beta ** counts.clamp(min=1))
    return weights * counts.sum() / (weights * counts).sum()
