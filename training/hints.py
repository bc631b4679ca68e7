"""Hints about a face beside its emotion: linear layers over the network's pooled features.

`occlusion`: whether something covers a part of the face. `face_likeness`: whether the crop shows an upright
face at all. The layers are fitted to faces with drawn occluders, and to pictures that are not faces. To
measure kinds that a layer never saw, each kind is once excluded from the fit. docs/explanation/quality.md has
the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from service.core.manifest import Metric
from training.datasets.faces import Bools, LabelledFaces
from training.evaluation.predict import Floats, predict
from training.models import Network
from training.not_faces import NOT_FACES
from training.occluders import OCCLUDERS, Occluder, occlude

FACES = 6000
"""Number of plain faces in the fit, and number of changed faces."""
SHARES = (0.08, 0.4)
WEIGHT_DECAY = 1e-3
"""Factor of the squared weights beside the mean loss."""

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

    def fit_and_measure(fitted: list[str], measured: list[str]) -> tuple[Pipeline, Metric]:
        model = _fit(plain, [changed[kind] for kind in fitted])
        features, truth = _joined(plain_held_out, [changed_held_out[kind] for kind in measured])
        area = roc_auc_score(truth, model.decision_function(features))
        return model, Metric(value=round(float(area), 4), samples=len(truth))

    model, auc = fit_and_measure([*kinds], [*kinds])
    figures = {"auc": auc}
    for kind in kinds:
        others = [other for other in kinds if other != kind]
        figures[f"auc_unseen_{kind}"] = fit_and_measure(others, [kind])[1]
    return _layer(model), figures


def _features(
    network: Network, faces: LabelledFaces, count: int, kinds: Mapping[str, Change]
) -> tuple[Floats, dict[str, Floats]]:
    """Features of `count` faces, always the same: plain faces [n,P], and changed faces by kind."""
    labelled = np.flatnonzero(faces.majority >= 0)
    chosen = np.random.default_rng(0).permutation(labelled)[:count]
    # Each kind gets a share of the faces, and at least one face.
    turns = np.array_split(np.resize(chosen, max(len(chosen), len(kinds))), len(kinds))
    torch.manual_seed(0)
    changed = {
        kind: predict(network, faces.rows(rows), change=change).pooled
        for rows, (kind, change) in zip(turns, kinds.items(), strict=True)
    }
    return predict(network, faces.rows(chosen)).pooled, changed


def _fit(plain: Floats, changed: Sequence[Floats]) -> Pipeline:
    """Logistic regression, in which plain and changed faces have the same total weight."""
    features, truth = _joined(plain, changed)
    regression = LogisticRegression(
        C=1 / (2 * WEIGHT_DECAY * len(truth)), class_weight="balanced", tol=1e-6, max_iter=1000
    )
    # In double precision, so that the result is reproducible.
    return make_pipeline(StandardScaler(), regression).fit(features.astype(np.float64), truth)


def _joined(plain: Floats, changed: Sequence[Floats]) -> tuple[Floats, Bools]:
    features = np.concatenate([plain, *changed])
    return features, np.arange(len(features)) >= len(plain)


def _layer(model: Pipeline) -> nn.Linear:
    """The model's logit as one layer over features that are not standardised."""
    scaler, regression = model
    weight = regression.coef_ / scaler.scale_
    layer = nn.Linear(weight.shape[1], 1).requires_grad_(False)
    layer.weight.copy_(torch.from_numpy(weight))
    layer.bias.copy_(torch.from_numpy(regression.intercept_ - weight @ scaler.mean_))
    return layer
