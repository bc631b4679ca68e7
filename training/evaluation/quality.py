"""The limits of quality beyond which a face is uncertain, measured on validation rows.

docs/explanation/quality.md has the results, and what images of 48 px cannot show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from service.core.manifest import Band, Metric, QualityCode, QualityLimit, QualityLimits, QualityMeasure
from training.datasets.faces import Bools
from training.evaluation.metrics import share_metric
from training.evaluation.poor_pictures import CLEAN, CORRUPTIONS, FOUND, NOT_FACE, SHIFTS, Answers, Probe

MAX_BANDS = 12
BAND_ROWS = 150
"""Minimum faces of a band: it gives a share to about 6 points."""
SHORTFALL = 0.10
FOUND_SHARE = 0.01
PROFILE_YAW = 0.99  # `yaw` is clipped to 1

RULE = (
    "Faces are sorted by the measure into bands of equal size. From the poor end, a band is poor if its "
    f"certain answers are right at least {100 * SHORTFALL:.0f} points less often than those of clean faces. "
    f"The limit is the inner edge of the last poor band. It holds back at most {FOUND_SHARE:.0%} of the "
    f"clean faces that the detector finds. For yaw the limit is {PROFILE_YAW:g} instead. In profiles the "
    "nose is beyond an eye, and the data have too few profiles to measure."
)
# The poor end of a measure.
TOO_LITTLE, TOO_MUCH = "min", "max"
# Code, measure, poor end, and the kinds of faces that choose the limit: first clean ones, then poor ones.
Candidate = tuple[QualityCode, QualityMeasure, str, tuple[str, ...]]
CANDIDATES: tuple[Candidate, ...] = (
    ("too_small", "size_px", TOO_LITTLE, (CLEAN, "too_small")),
    ("blurred", "sharpness", TOO_LITTLE, (CLEAN, "blurred")),
    ("too_dark", "brightness", TOO_LITTLE, (CLEAN, "too_dark")),
    ("too_bright", "brightness", TOO_MUCH, (CLEAN, "too_bright")),
    ("low_contrast", "contrast", TOO_LITTLE, (CLEAN, "low_contrast")),
    ("occluded", "occlusion", TOO_MUCH, (CLEAN, "occluded")),
    ("no_clear_face", "face_likeness", TOO_LITTLE, (CLEAN, NOT_FACE)),
    ("turned_away", "yaw", TOO_MUCH, (FOUND,)),
    ("turned_away", "pitch", TOO_MUCH, (FOUND,)),
)


def choose_limits(answers: Answers, threshold: float, data: str) -> QualityLimits:
    """By `RULE`; threshold: minimum confidence of a certain answer; data: the faces that were used."""
    limits = tuple(_limit(candidate, answers, threshold) for candidate in CANDIDATES)
    return QualityLimits(limits=limits, rule=RULE, data=data)


def _limit(candidate: Candidate, answers: Answers, threshold: float) -> QualityLimit:
    code, measure, poor_end, kinds = candidate
    bands = _bands(answers.of(*kinds), measure, threshold)
    clean = answers.of(kinds[0])
    needed = _share(clean.right[clean.confidence >= threshold]) - SHORTFALL
    inward = bands if poor_end == TOO_LITTLE else bands[::-1]
    edge = None
    for band in inward[:-1]:
        # A band without certain answers does not end the search.
        if band.certain and band.certain_accuracy > needed:
            break
        edge = band.high if poor_end == TOO_LITTLE else band.low
    if edge is not None:
        found = np.abs(answers.of(FOUND).measured[measure])
        # The share of small faces is unknown, because all pictures have one size.
        if not np.isnan(found).all():
            if poor_end == TOO_LITTLE:
                edge = min(edge, float(np.quantile(found, FOUND_SHARE)))
            else:
                edge = max(edge, float(np.quantile(found, 1 - FOUND_SHARE)))
        edge = _three_digits(edge, math.floor if poor_end == TOO_LITTLE else math.ceil)
    if measure == "yaw":
        edge = PROFILE_YAW
    return QualityLimit(code=code, measure=measure, bands=tuple(bands), **({poor_end: edge} if edge else {}))


def _bands(answers: Answers, measure: QualityMeasure, threshold: float) -> list[Band]:
    amounts = np.abs(answers.measured[measure]).astype(np.float64).round(6)
    count = min(MAX_BANDS, len(amounts) // BAND_ROWS)
    if not count:
        return []
    # Edges are measured values, so that no band is empty.
    edges = np.unique(np.quantile(amounts, np.linspace(0, 1, count + 1), method="lower"))
    edges[-1] = np.nextafter(edges[-1], np.inf)
    bands = []
    for low, high in pairwise(edges.tolist()):
        inside = answers.choose((amounts >= low) & (amounts < high))
        certain = inside.confidence >= threshold
        bands.append(
            Band(
                low=round(low, 4),
                high=round(high, 4),
                samples=len(certain),
                accuracy=_share(inside.right),
                confidence=round(float(inside.confidence.mean()), 4),
                certain=_share(certain),
                certain_accuracy=_share(inside.right[certain]),
            )
        )
    return bands


def _three_digits(value: float, towards: Callable[[float], int]) -> float:
    """Round towards the poor end, so that no face of the limit's own band is beyond it."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{towards(round(value / step, 6)) * step:.3g}")


def beyond(limits: QualityLimits, answers: Answers) -> Bools:
    """bool [N]: answers beyond at least one limit. A measure that is unknown is beyond none."""
    held_back = np.zeros(len(answers.right), np.bool_)
    for limit in limits.limits:
        amounts = np.abs(answers.measured[limit.measure])
        if limit.min is not None:
            held_back |= amounts < limit.min
        if limit.max is not None:
            held_back |= amounts > limit.max
    return held_back


def confirm(answers: Answers, limits: QualityLimits, threshold: float) -> dict[str, dict[str, Metric]]:
    """What the limits give on a split that nothing was chosen on, clean and corrupted."""
    kinds = {
        "quality": (FOUND,),
        "quality_corrupted": [corruption.name for corruption in CORRUPTIONS],
        "quality_not_faces": (NOT_FACE,),
    }
    return {name: _with_and_without(answers.of(*kind), limits, threshold) for name, kind in kinds.items()}


def under_shifts(probe: Probe, limits: QualityLimits, threshold: float) -> dict[str, dict[str, Metric]]:
    """Accuracy of all answers, and share and accuracy of the certain ones, under each shift."""

    def under(answers: Answers) -> dict[str, Metric]:
        certain = (answers.confidence >= threshold) & ~beyond(limits, answers)
        return {
            "accuracy": _metric(answers.right),
            "coverage": _metric(certain),
            "selective_accuracy": share_metric(answers.right[certain]),
        }

    return {
        f"shift: {shift.name} {strength:g}": under(probe.shifted(shift, strength))
        for shift in SHIFTS
        for strength in shift.strengths
    }


def _with_and_without(answers: Answers, limits: QualityLimits, threshold: float) -> dict[str, Metric]:
    confident, poor = answers.confidence >= threshold, beyond(limits, answers)
    certain, held_back = confident & ~poor, confident & poor
    return {
        "coverage": _metric(certain),
        "coverage_without_limits": _metric(confident),
        "selective_accuracy": _metric(answers.right[certain]),
        "selective_accuracy_without_limits": _metric(answers.right[confident]),
        "held_back_accuracy": _metric(answers.right[held_back]),
    }


def _metric(right: Bools) -> Metric:
    return Metric(value=_share(right), samples=len(right))


def _share(right: Bools) -> float:
    return round(float(right.mean()), 4) if len(right) else 0.0
