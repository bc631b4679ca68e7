"""Building blocks and the mixture of experts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.models.blocks import ChannelAttention, ConvNormAct, Residual, SpatialAttention
from training.models.mixture import MixtureOfExperts, load_balancing_loss


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kernel", [3, 5, 15])
@pytest.mark.parametrize(("stride", "side"), [(1, 12), (2, 6)])
def test_only_the_stride_of_a_convolution_changes_the_size(kernel: int, stride: int, side: int) -> None:
    answer = ConvNormAct(2, 5, kernel, stride=stride)(torch.randn(3, 2, 12, 12))
    assert answer.shape == (3, 5, side, side)
    assert (answer >= 0).all()


@pytest.mark.parametrize("attention", [ChannelAttention(16), SpatialAttention()])
def test_attention_scales_by_less_than_one(attention: torch.nn.Module) -> None:
    x = torch.randn(3, 16, 6, 6)
    answer = attention(x)
    gate = answer / x
    assert answer.shape == x.shape
    assert ((gate > 0) & (gate < 1)).all()


def test_channel_attention_has_a_gate_per_channel_and_spatial_attention_per_position() -> None:
    x = torch.rand(2, 16, 6, 6) + 0.5
    by_channel = ChannelAttention(16)(x) / x
    torch.testing.assert_close(by_channel, by_channel[:, :, :1, :1].expand_as(x))
    by_position = SpatialAttention()(x) / x
    torch.testing.assert_close(by_position, by_position[:, :1].expand_as(x))
    assert by_channel.std() > 0
    assert by_position.std() > 0


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(("channels_out", "stride", "side"), [(4, 1, 8), (6, 1, 8), (4, 2, 4), (6, 2, 4)])
def test_residual_blocks_have_their_output_shapes(
    channels_out: int, stride: int, side: int, attention: bool
) -> None:
    block = Residual(4, channels_out, stride=stride, attention=attention)
    assert block(torch.randn(2, 4, 8, 8)).shape == (2, channels_out, side, side)


def test_residual_passes_on_its_input_if_its_body_is_zero() -> None:
    block = Residual(4, 4).eval()
    torch.nn.init.zeros_(block.body[-1].weight)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(block(x), torch.relu(x))


def by_hand(mixture: MixtureOfExperts, row: Tensor) -> Tensor:
    """The mixture of one row, expert by expert."""
    scores = torch.softmax(mixture.gate(row), dim=0)
    best = scores.argsort(descending=True)[: mixture.top_k].tolist()
    total = sum(float(scores[expert]) for expert in best) if mixture.renormalise else 1.0
    answer = torch.zeros(mixture.bias.shape[1])
    for expert in best:
        answer += scores[expert] / total * torch.relu(row @ mixture.weight[expert] + mixture.bias[expert])
    return answer


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("top_k", [1, 2, 4])
@torch.no_grad()
def test_the_mixture_is_the_weighted_sum_of_its_best_experts(top_k: int, renormalise: bool) -> None:
    mixture = MixtureOfExperts(6, 5, experts=4, top_k=top_k, renormalise=renormalise)
    torch.nn.init.normal_(mixture.bias)
    x = torch.randn(9, 6)
    mixed, weights, scores = mixture(x)
    assert mixed.shape == (9, 5)
    assert weights.shape == scores.shape == (9, 4)
    for row, answer in zip(x, mixed, strict=True):
        torch.testing.assert_close(answer, by_hand(mixture, row))


@torch.no_grad()
def test_only_the_best_two_experts_have_weights() -> None:
    _, weights, scores = MixtureOfExperts(6, 5)(torch.randn(50, 6))
    assert ((weights > 0).sum(dim=1) == 2).all()
    assert torch.equal(weights.topk(2).indices, scores.topk(2).indices)
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(50))
    torch.testing.assert_close(weights[weights > 0], scores[weights > 0])


@torch.no_grad()
def test_renormalised_weights_sum_to_one_in_the_same_proportions() -> None:
    _, weights, scores = MixtureOfExperts(6, 5, renormalise=True)(torch.randn(50, 6))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(50))
    best = scores.topk(2).values
    torch.testing.assert_close(weights.topk(2).values, best / best.sum(dim=1, keepdim=True))


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours() -> None:
    mixture = MixtureOfExperts(6, 5, renormalise=True)
    x = torch.randn(17, 6)
    together, _, _ = mixture(x)
    alone = torch.cat([mixture(row[None])[0] for row in x])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_experts_that_were_not_chosen_learn_nothing() -> None:
    mixture = MixtureOfExperts(6, 5)
    mixed, weights, _ = mixture(torch.randn(1, 6))
    mixed.sum().backward()
    assert mixture.weight.grad is not None
    touched = mixture.weight.grad.abs().sum(dim=(1, 2)) > 0
    assert not touched[weights[0] == 0].any()


def one_hot(*experts: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(experts), 4).float()


@pytest.mark.parametrize(
    ("weights", "scores", "loss"),
    [
        pytest.param(one_hot(0, 1, 2, 3), torch.full((4, 4), 0.25), 1.0, id="uniform, one each"),
        pytest.param(
            one_hot(0, 1, 2, 3) + one_hot(1, 2, 3, 0), torch.full((4, 4), 0.25), 1.0, id="uniform, two each"
        ),
        pytest.param(one_hot(0, 0, 0, 0), one_hot(0, 0, 0, 0), 4.0, id="all on one"),
        pytest.param(
            one_hot(0, 0) + one_hot(1, 1), torch.tensor([[0.5, 0.5, 0, 0]] * 2), 2.0, id="all on two"
        ),
        pytest.param(
            one_hot(0, 1) * 0.6 + one_hot(1, 2) * 0.4,
            torch.tensor([[0.6, 0.4, 0.0, 0.0], [0.0, 0.6, 0.4, 0.0]]),
            4 * (0.25 * 0.3 + 0.5 * 0.5 + 0.25 * 0.2),
            id="by hand",
        ),
    ],
)
def test_load_balancing_loss(weights: Tensor, scores: Tensor, loss: float) -> None:
    assert load_balancing_loss(weights, scores).item() == pytest.approx(loss)


def test_load_balancing_loss_pulls_towards_idle_experts() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, 0.0]] * 8, requires_grad=True)
    scores = torch.softmax(logits, dim=1)
    weights = scores * torch.tensor([1.0, 1.0, 0.0, 0.0])
    load_balancing_loss(weights, scores).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 2:] < 0).all()
