"""Accuracy by subgroups that the images, votes and labels of a data set define."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from pydantic.dataclasses import dataclass
from scipy.stats import binomtest

from service.core.manifest import EMOTIONS, Metric, Subgroups
from training.datasets.faces import Ints, LabelledFaces
from training.evaluation import metrics
from training.evaluation.predict import Floats

AGREEMENT = (0.0, 0.6, 0.8, 1.01)
# No supported data set has labels for these.
NOT_MEASURED = ("age", "sex", "skin tone", "culture", "disability")


@dataclass(frozen=True)
class Subgroup:
    """Test rows with a common measurable property."""

    name: str
    accuracy: Metric


def subgroups(answers: Floats, rows: LabelledFaces) -> list[Subgroup]:
    """Accuracy by thirds of light, contrast and sharpness, and by the agreement of annotators.

    answers: float32 [N,C]. Few data sets have labels about the people in their images.
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
    found = []
    for name, values in measured.items():
        third, two_thirds = np.quantile(values, [1 / 3, 2 / 3])
        parts = {
            "low": values < third,
            "middle": (values >= third) & (values < two_thirds),
            "high": values >= two_thirds,
        }
        found += [
            Subgroup(f"{name}: {part}", metrics.accuracy(answers[inside], rows.majority[inside]))
            for part, inside in parts.items()
        ]
    agreement = rows.distributions.max(axis=1)
    for low, high in pairwise(AGREEMENT):
        inside = (agreement >= low) & (agreement < high) & (rows.majority >= 0)
        if inside.any() and not inside[rows.majority >= 0].all():
            found.append(
                Subgroup(
                    f"annotators' agreement: {low:.0%} to {min(high, 1):.0%}",
                    metrics.accuracy(answers[inside], rows.majority[inside]),
                )
            )
    return found


def recalls(answers: Floats, labels: Ints) -> dict[str, Metric]:
    """Recall of each emotion, with Wilson's 95 % interval.

    When no face of an emotion is found, a bootstrap interval has width 0, even for a dozen faces.
    """
    found = {}
    for label in np.unique(labels[labels >= 0]).tolist():
        here = answers[labels == label].argmax(axis=1) == label
        found[EMOTIONS[label]] = Metric(
            value=round(float(here.mean()), 4), samples=len(here), interval=wilson(int(here.sum()), len(here))
        )
    return found


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % (Wilson, 1927)."""
    interval = binomtest(hits, count).proportion_ci(method="wilson")
    return round(float(interval.low), 4), round(float(interval.high), 4)


def for_manifest(split: str, answers: Floats, rows: LabelledFaces) -> Subgroups:
    """All subgroup figures, as in a manifest. answers: [N,C] of a test split's rows."""
    return Subgroups(
        data=split,
        accuracy={group.name: group.accuracy for group in subgroups(answers, rows)},
        recall=recalls(answers, rows.majority),
        not_measured=NOT_MEASURED,
    )
