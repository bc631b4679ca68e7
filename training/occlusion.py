"""The hint that something covers a part of a face: one linear layer over what the network sees anyway.

It is learned from faces that things were drawn over. Whether it knows more than those drawings is measured
by leaving each kind of them out once; docs/explanation/quality.md has the figures.
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
"""So many faces are learned from whole, and as many with something before them."""
SHARES = (0.08, 0.4)
WEIGHT_DECAY = 1e-3


def fit_occlusion(
    network: Network, faces: LabelledFaces, held_out: LabelledFaces
) -> tuple[nn.Linear, dict[str, Metric]]:
    """The layer, [N,P] pooled features -> [N,1] logit, fitted on `faces`; and what it is worth on `held_out`.

    Figures are areas under the ROC curve, covered faces against whole ones: `auc`, and `auc_unseen_KIND` of
    a layer that never met that kind of thing. Faces of a data set are taken for whole; some are not.
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
    """Of `count` faces, the same ones every time: whole [n,P], and by kind those with it before them."""
    labelled = np.flatnonzero(faces.majority >= 0)
    chosen = np.random.default_rng(0).permutation(labelled)[:count]
    # Each kind has a share of the faces, at least one where there are fewer faces than kinds.
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
    """Logistic regression; in double precision, so that it comes out the same again."""
    features = torch.cat([whole, covered]).double()
    truth = torch.cat([torch.zeros(len(whole)), torch.ones(len(covered))]).double()
    # Neither side counts for more because there is more of it.
    balance = torch.where(truth == 1, 0.5 / len(covered), 0.5 / len(whole))
    mean, deviation = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    features = (features - mean) / deviation
    weight = torch.zeros(features.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros((), dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        wrong = functional.binary_cross_entropy_with_logits(
            features @ weight + bias, truth, balance, reduction="sum"
        )
        value = wrong + WEIGHT_DECAY * weight.square().sum()
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
