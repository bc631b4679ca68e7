from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.config import LossConfig
from training.losses import Objective, TeacherLogits, class_balanced_weights, smoothed, soft_cross_entropy
from training.models import Outputs

PLAIN = {"label_head": 0.0, "load_balancing": 0.0}


def outputs(logits: Tensor, label_logits: Tensor | None = None) -> Outputs:
    count = len(logits)
    if label_logits is None:
        label_logits = without_label(count)
    even = torch.full((count, 2, 4), 0.25)
    return Outputs(logits, label_logits, torch.zeros(count, 2, 4), even, torch.zeros(count, 3))


def without_label(rows: int) -> Tensor:
    """Targets of the label head, on a data set without labels for it."""
    return torch.zeros(rows, 0)


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [5.0, -2.0]])
    targets = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    by_hand = -0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4)
    assert soft_cross_entropy(logits, targets).item() == pytest.approx(by_hand)


def test_rows_without_a_target_teach_nothing() -> None:
    logits = torch.zeros(3, 8, requires_grad=True)
    targets = torch.zeros(3, 8)
    targets[1, 4] = 1
    Objective(LossConfig(label_smoothing=0.1, **PLAIN), torch.ones(8))(
        outputs(logits), targets, without_label(3)
    ).backward()
    assert logits.grad is not None
    assert logits.grad[[0, 2]].abs().max() == 0
    assert logits.grad[1].abs().max() > 0


def test_smoothing_keeps_the_sum_and_skips_empty_rows() -> None:
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert smoothed(targets, 0.2).tolist() == [pytest.approx([0.85, 0.05, 0.05, 0.05]), [0.0] * 4]


def test_rare_emotions_weigh_more_and_the_mean_stays() -> None:
    counts = torch.tensor([1000.0, 100.0, 10.0])
    weights = class_balanced_weights(counts, 0.999)
    assert weights[0] < weights[1] < weights[2]
    assert (weights * counts).sum().item() == pytest.approx(counts.sum().item())
    # The effective numbers of Cui et al., equation 2.
    effective = (1 - 0.999 ** counts.double()) / (1 - 0.999)
    ratio = (weights[2] / weights[0]).item()
    assert ratio == pytest.approx((effective[0] / effective[2]).item(), rel=1e-4)


def test_logit_adjustment_raises_the_loss_of_rare_emotions() -> None:
    """A network with equal logits has a greater loss for a rare emotion than for a frequent one."""
    counts = torch.tensor([900.0, 100.0])
    losses = {}
    for kind in ("none", "logit_adjusted"):
        objective = Objective(LossConfig(rebalancing=kind, **PLAIN), counts)
        losses[kind] = [
            objective(outputs(torch.zeros(1, 2)), torch.eye(2)[[label]], without_label(1)).item()
            for label in (0, 1)
        ]
    assert losses["none"] == pytest.approx([math.log(2)] * 2)
    assert losses["logit_adjusted"] == pytest.approx([-math.log(0.9), -math.log(0.1)])


def test_a_student_that_equals_its_teacher_has_no_distillation_loss() -> None:
    teacher = torch.tensor([[2.0, -1.0, 0.5]])
    taught = torch.eye(3)[[1]], without_label(1), TeacherLogits(teacher, without_label(1))
    objective = Objective(LossConfig(distillation=1.0, **PLAIN), torch.ones(3))
    assert objective(outputs(teacher + 7), *taught).item() == pytest.approx(0, abs=1e-6)
    assert objective(outputs(-teacher), *taught).item() > 0.1


def test_the_loss_of_the_label_head_is_weighted() -> None:
    main, label = torch.eye(8)[[0]], torch.eye(7)[[3]]
    answered = outputs(torch.zeros(1, 8), torch.zeros(1, 7))
    config = LossConfig(label_head=2.0, load_balancing=0.0)
    loss = Objective(config, torch.ones(8))(answered, main, label).item()
    assert loss == pytest.approx(math.log(8) + 2 * math.log(7))
