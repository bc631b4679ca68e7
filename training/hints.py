"""Hints about a face beside its emotion: linear layers over the network's pooled features.

`occlusion`: whether something covers a part of the face. `face_likeness`: whether the crop shows an upright
face at all. The layers are fitted to faces with drawn occluders, and to pictures that are not faces. To
measure kinds that a layer never saw, each kind is once excluded from the fit. docs/explanation/quality.md has
the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from service.core.manifest import Metric
from training.datasets.faces import Ints, LabelledFaces
from training.evaluation.predict import predict
from training.models import Network
from training.not_faces import NOT_FACES
from training.occluders import OCCLUDERS, Occluder, occlude

FACES = 6000
"""Number of plain faces in the fit, and number of changed faces."""
SHARES = (0.08, 0.4)
WEIGHT_DECAY = 1e-3


Change = Callable[[Tensor], Tensor]  # images float [N,C,S,S] in [0, 1] -> the same shape


def fit_occlusion(
    network: Network, faces: LabelledFaces, held_out: LabelledFaces
) -> tuple[nn.Linear, dict[str, Metric]]:
    """The layer with a high logit for covered faces. All faces of a data set count as whole."""
    return _fit_and_measure(
        network, faces, held_out, {kind: partial(_cover, occluder) for kind, occluder in OCCLUDERS.items()}
    )


def fit_face_likeness(
    network: Network, faces: LabelledFaces, held_out: LabelledFaces
) -> tuple[nn.Linear, dict[str, Metric]]:
    """The layer with a high logit for upright faces."""
    layer, figures = _fit_and_measure(network, faces, held_out, NOT_FACES)
    with torch.no_grad():
        layer.weight.neg_()
        layer.bias.neg_()
    return layer, figures


def _cover(occluder: Occluder, images: Tensor) -> Tensor:
    share = SHARES[0] + (SHARES[1] - SHARES[0]) * torch.rand(len(images))
    return occlude(images, share, occluder)


def _fit_and_measure(
    network: Network, faces: LabelledFaces, held_out: LabelledFaces, kinds: Mapping[str, Change]
) -> tuple[nn.Linear, dict[str, Metric]]:
    """Fit a layer, [N,P] pooled features -> [N,1] logit of changed faces, on `faces`; measure on `held_out`.

    Figures are areas under the ROC curve of changed against plain faces: `auc`, and `auc_unseen_KIND` of a
    layer fitted without this kind.
    """
    plain, changed = _features(network, faces, FACES, kinds)
    plain_held_out, changed_held_out = _features(network, held_out, len(held_out), kinds)

    def auc(layer: nn.Linear, measured: list[str]) -> Metric:
        with torch.no_grad():
            positive = torch.cat([layer(changed_held_out[kind]) for kind in measured])
            scores = torch.cat([positive, layer(plain_held_out)]).flatten().numpy()
        area = roc_auc_score(np.arange(len(scores)) < len(positive), scores)
        return Metric(value=round(float(area), 4), samples=len(scores))

    layer = _fit(plain, torch.cat(list(changed.values())))
    figures = {"auc": auc(layer, list(kinds))}
    for kind in kinds:
        others = torch.cat([part for other, part in changed.items() if other != kind])
        figures[f"auc_unseen_{kind}"] = auc(_fit(plain, others), [kind])
    return layer, figures


def _features(
    network: Network, faces: LabelledFaces, count: int, kinds: Mapping[str, Change]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Features of `count` faces, always the same: plain faces [n,P], and changed faces by kind."""
    labelled = np.flatnonzero(faces.majority >= 0)
    chosen = np.random.default_rng(0).permutation(labelled)[:count]
    # Each kind gets a share of the faces, and at least one face.
    turns = np.array_split(np.resize(chosen, max(len(chosen), len(kinds))), len(kinds))
    torch.manual_seed(0)
    changed = {
        kind: _pooled(network, faces, rows, change)
        for rows, (kind, change) in zip(turns, kinds.items(), strict=True)
    }
    return _pooled(network, faces, chosen), changed


def _pooled(network: Network, faces: LabelledFaces, rows: Ints, change: Change | None = None) -> Tensor:
    return torch.from_numpy(predict(network, faces.rows(rows), change=change).pooled)


def _fit(plain: Tensor, changed: Tensor) -> nn.Linear:
    """Logistic regression, in double precision so that the result is reproducible."""
    features = torch.cat([plain, changed]).double()
    truth = torch.cat([torch.zeros(len(plain)), torch.ones(len(changed))]).double()
    # Both classes have the same total weight.
    balance = torch.where(truth == 1, 0.5 / len(changed), 0.5 / len(plain))
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
