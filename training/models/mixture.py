"""Top-k mixture of dense experts, as in ExpressNet-MoE (arXiv 2510.13493)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MixtureOfExperts(nn.Module):
    """[N, features_in] -> ([N, features_out], gate weights [N, experts]).

    A softmax gate scores the experts. The best `top_k` experts answer, and all others have weight 0. The
    paper does not change the weights of the chosen experts; `renormalise` scales them to a sum of 1.

    All experts run as one stacked product. Below about 32 rows, this is as fast as dispatching rows to
    experts. The answer of a row does not depend on other rows.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        experts: int = 4,
        top_k: int = 2,
        renormalise: bool = False,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.renormalise = renormalise
        self.gate = nn.Linear(features_in, experts)
        self.weight = nn.Parameter(torch.empty(experts, features_in, features_out))
        self.bias = nn.Parameter(torch.zeros(experts, features_out))
        bound = math.sqrt(6 / (features_in + features_out))  # Glorot uniform, Keras' default for Dense
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: [N, features_in] -> (mixed [N, features_out], gate weights [N, E], gate softmax [N, E])."""
        scores = torch.softmax(self.gate(x), dim=1)
        kept = torch.zeros_like(scores).scatter(1, scores.topk(self.top_k, dim=1).indices, 1.0)
        weights = scores * kept
        if self.renormalise:
            weights = weights / weights.sum(dim=1, keepdim=True)
        answers = torch.relu(torch.matmul(x, self.weight) + self.bias.unsqueeze(1))  # [E, N, features_out]
        return (weights.t().unsqueeze(2) * answers).sum(dim=0), weights, scores


def load_balancing_loss(weights: Tensor, scores: Tensor) -> Tensor:
    """N * sum(f_i * P_i) of Switch Transformer (Fedus et al., 2022): 1 when all experts are used equally.

    weights: [N, E], zero where an expert was not chosen; scores: [N, E] gate softmax. f_i is the share of
    routed slots that expert i took, P_i its mean gate score. It is 0 without experts.
    """
    chosen = (weights > 0).to(scores.dtype)
    load = chosen.mean(dim=0) / chosen.sum(dim=1).mean().clamp(min=1)
    return scores.shape[1] * (load * scores.mean(dim=0)).sum()
