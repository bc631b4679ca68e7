"""The occlusion hint: one linear layer over the network's pooled features.

The layer is fitted to faces with drawn occluders. To measure other occluders, each kind is once excluded from
the fit. docs/explanation/quality.md has the figures.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.core.manifest import Metric
from training.datasets.faces import Ints, LabelledFaces
from training.evaluation.predict import predict
from training.models import Network
from training.occluders import OCCLUDERS, Occluder, occlude

FACES = 6000
"""Number of uncovered faces in the fit, and number of covered faces."""
SHARES = (0.08, 0.4)
WEIGHT_DECAY = 1e-3


def fit_occlusion(
    network: Network, faces: LabelledFaces, held_out: LabelledFaces
) -> tuple[nn.Linear, dict[str, Metric]]:
    """Fit the layer, [N,P] pooled features -> [N,1] logit, on `faces`, and measure it on `held_out`.

    Figures are areas under the ROC curve of covered against whole faces: `auc`, and `auc_unseen_KIND` of a
    layer fitted without this kind of occluder. All faces of a data set count as whole, although some are not.
    """
    whole, covered = _features(network, faces, FACES)
    whole_held_out, covered_held_out = _features(network, held_out, len(held_out))

    def worth(layer: nn.Linear, kinds: list[str]) -> Metric:
        with torch.no_grad():
            hidden = torch.cat([layer(covered_held_out[kind]) for kind in kinds])
            area = _area_under_curve(hidden.flatten(), layer(whole_held_out).flatten())
        return Metric(value=round(area, 4), samples=len(hidden) + len(whole_held_out))

    layer = _fit(whole, torch.cat(list(covered.values())))
    figures = {"auc": worth(layer, list(OCCLUDERS))}
    for kind in OCCLUDERS:
        others = torch.cat([part for other, part in covered.items() if other != kind])
        figures[f"auc_unseen_{kind}"] = worth(_fit(whole, others), [kind])
    return layer, figures


def _features(network: Network, faces: LabelledFaces, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Features of `count` faces, always the same: whole faces [n,P], and covered faces by kind."""
    labelled = np.flatnonzero(faces.majority >= 0)
    chosen = np.random.default_rng(0).permutation(labelled)[:count]
    # Each kind gets a share of the faces, and at least one face.
    turns = np.array_split(np.resize(chosen, max(len(chosen), len(OCCLUDERS))), len(OCCLUDERS))
    torch.manual_seed(0)
    covered = {
        kind: _pooled(network, faces, rows, occluder)
        for rows, (kind, occluder) in zip(turns, OCCLUDERS.items(), strict=True)
    }
    return _pooled(network, faces, chosen), covered


def _pooled(network: Network, faces: LabelledFaces, rows: Ints, occluder: Occluder | None = None) -> Tensor:
    def cover(images: Tensor) -> Tensor:
        share = SHARES[0] + (SHARES[1] - SHARES[0]) * torch.rand(len(images))
        return occlude(images, share, occluder)

    return torch.from_numpy(predict(network, faces.rows(rows), change=cover if occluder else None).pooled)


def _fit(whole: Tensor, covered: Tensor) -> nn.Linear:
    """Logistic regression, in double precision so that the result is reproducible."""
    features = torch.cat([whole, covered]).double()
    truth = torch.cat([torch.zeros(len(whole)), torch.ones(len(covered))]).double()
    # Both classes have the same total weight.
    balance = torch.where(truth == 1, 0.5 / len(covered), 0.5 / len(whole))
    mean, deviation = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    features = (features - mean) / deviation
    weight = torch.zeros(features.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros((), dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        error = functional.binary_cross_entropy_with_logits(
            features @ weight + bias, truth, balance, reduction="sum"
        )
        value = error + WEIGHT_DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    layer = nn.Linear(len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_((weight / deviation)[None])
        layer.bias.copy_(bias - (weight * mean / deviation).sum())
    return layer.requires_grad_(False)


def _area_under_curve(positive: Tensor, negative: Tensor) -> float:
    """Share of the pairs in which the positive one is greater, ties counting half."""
    ordered = negative.sort().values
    below, up_to = (torch.searchsorted(ordered, positive, right=right) for right in (False, True))
    return float((below + up_to).double().mean()) / (2 * len(negative))
