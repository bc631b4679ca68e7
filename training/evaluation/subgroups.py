"""Accuracy by subgroups that the images, votes and labels of a data set define."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from service.core.manifest import EMOTIONS, Metric, Subgroups
from training.datasets.faces import Ints, LabelledFaces
from training.evaluation.metrics import accuracy, share_metric
from training.evaluation.predict import Floats

AGREEMENT = (0.0, 0.6, 0.8, 1.01)
# No supported data set has labels for these.
NOT_MEASURED = ("age", "sex", "skin tone", "culture", "disability")


def subgroups(split: str, answers: Floats, rows: LabelledFaces) -> Subgroups:
    """All subgroup figures of one split. answers: float32 [N,C] of its rows."""
    return Subgroups(
        data=split,
        accuracy=_by_property(answers, rows),
        recall=recalls(answers, rows.majority),
        not_measured=NOT_MEASURED,
    )


def _by_property(answers: Floats, rows: LabelledFaces) -> dict[str, Metric]:
    """Accuracy by thirds of light, contrast and sharpness, and by the agreement of annotators.

    Few data sets have labels about the people in their images.
    """
    pixels = rows.pictures.read(np.arange(len(rows)), size=48, channels=1)[:, 0].astype(np.float32)
    laplacian = (
        4 * pixels[:, 1:-1, 1:-1]
        - pixels[:, :-2, 1:-1]
        - pixels[:, 2:, 1:-1]
        - pixels[:, 1:-1, :-2]
        - pixels[:, 1:-1, 2:]
    )
    measured = {
        "light": pixels.mean(axis=(1, 2)),
        "contrast": pixels.std(axis=(1, 2)),
        "sharpness": laplacian.var(axis=(1, 2)),
    }
    groups = {}
    for name, values in measured.items():
        third, two_thirds = np.quantile(values, [1 / 3, 2 / 3])
        groups[f"{name}: low"] = values < third
        groups[f"{name}: middle"] = (values >= third) & (values < two_thirds)
        groups[f"{name}: high"] = values >= two_thirds
    agreement = rows.distributions.max(axis=1)
    for low, high in pairwise(AGREEMENT):
        inside = (agreement >= low) & (agreement < high) & (rows.majority >= 0)
        if inside.any() and not inside[rows.majority >= 0].all():
            groups[f"annotators' agreement: {low:.0%} to {min(high, 1):.0%}"] = inside
    return {name: accuracy(answers[inside], rows.majority[inside]) for name, inside in groups.items()}


def recalls(answers: Floats, labels: Ints) -> dict[str, Metric]:
    """Recall of each emotion."""
    return {
        EMOTIONS[label]: share_metric(answers[labels == label].argmax(axis=1) == label)
        for label in np.unique(labels[labels >= 0]).tolist()
    }
