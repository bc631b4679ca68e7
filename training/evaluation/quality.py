"""The limits of quality beyond which a face is uncertain, measured on validation rows.

docs/explanation/quality.md has the results, and what images of 48 px cannot show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from service.core.manifest import Band, Metric, QualityCode, QualityLimit, QualityLimits, QualityMeasure
from training.evaluation.poor_pictures import CORRUPTIONS, Rows, ServedModelProbe
from training.not_faces import NOT_FACES

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
CANDIDATES: tuple[tuple[QualityCode, QualityMeasure, str], ...] = (
    ("too_small", "size_px", TOO_LITTLE),
    ("blurred", "sharpness", TOO_LITTLE),
    ("too_dark", "brightness", TOO_LITTLE),
    ("too_bright", "brightness", TOO_MUCH),
    ("low_contrast", "contrast", TOO_LITTLE),
    ("occluded", "occlusion", TOO_MUCH),
    ("no_clear_face", "face_likeness", TOO_LITTLE),
    ("turned_away", "yaw", TOO_MUCH),
    ("turned_away", "pitch", TOO_MUCH),
)


@dataclass(frozen=True)
class ProbeResults:
    """All rows of a probe, by the kind of picture.

    found: cut out by the gateway's own steps; clean: as the data set has them; corrupted: by code; not_faces:
    pictures without an upright face.
    """

    found: Rows
    clean: Rows
    corrupted: dict[QualityCode, Rows]
    not_faces: Rows

    def pool(self, code: QualityCode) -> Rows:
        """The rows that choose a code's limit: clean faces, and its own corruption at every strength."""
        if code == "turned_away":
            return self.found
        if code == "no_clear_face":
            return self.clean.join(self.not_faces)
        return self.clean.join(self.corrupted[code])


def run_probe(probe: ServedModelProbe) -> ProbeResults:
    """Measure the served model on every corruption at every strength, on clean faces and other pictures."""
    found, share = probe.detected_crops()
    corrupted: dict[QualityCode, Rows] = {}
    for corruption in CORRUPTIONS:
        for strength in corruption.strengths:
            rows = probe.corrupted(corruption, strength, share)
            corrupted[corruption.code] = (
                corrupted[corruption.code].join(rows) if corruption.code in corrupted else rows
            )
    not_faces = joined([probe.not_faces(kind) for kind in NOT_FACES.values()])
    return ProbeResults(found, probe.clean(share), corrupted, not_faces)


def choose_limits(results: ProbeResults, threshold: float, data: str) -> QualityLimits:
    """By `RULE`; threshold: minimum confidence of a certain answer; data: the faces that were used."""
    return QualityLimits(
        limits=tuple(
            _limit(code, measure, poor_end, results.pool(code), results.found, threshold)
            for code, measure, poor_end in CANDIDATES
        ),
        rule=RULE,
        data=data,
    )


def _limit(
    code: QualityCode, measure: QualityMeasure, poor_end: str, pool: Rows, found: Rows, threshold: float
) -> QualityLimit:
    bands = _bands(pool, measure, threshold)
    needed = _certain_accuracy(pool.choose(pool.clean), threshold) - SHORTFALL
    inward = bands if poor_end == TOO_LITTLE else bands[::-1]
    edge = None
    for band in inward[:-1]:
        # A band without certain answers does not end the search.
        if band.certain and band.certain_accuracy > needed:
            break
        edge = band.high if poor_end == TOO_LITTLE else band.low
    if edge is not None:
        # `found` has no `size_px`: all pictures have one size, so the share of small faces is unknown.
        amounts = np.abs(found.measured.get(measure, np.full(1, edge)))
        if poor_end == TOO_LITTLE:
            edge = min(edge, float(np.quantile(amounts, FOUND_SHARE)))
        else:
            edge = max(edge, float(np.quantile(amounts, 1 - FOUND_SHARE)))
        edge = _three_digits(edge, math.floor if poor_end == TOO_LITTLE else math.ceil)
    if measure == "yaw":
        edge = PROFILE_YAW
    return QualityLimit(code=code, measure=measure, bands=tuple(bands), **({poor_end: edge} if edge else {}))


def _bands(pool: Rows, measure: QualityMeasure, threshold: float) -> list[Band]:
    amounts = np.abs(pool.measured[measure]).astype(np.float64).round(6)
    count = min(MAX_BANDS, len(amounts) // BAND_ROWS)
    if not count:
        return []
    # Edges are measured values, so that no band is empty.
    edges = np.unique(np.quantile(amounts, np.linspace(0, 1, count + 1), method="lower"))
    edges[-1] = np.nextafter(edges[-1], np.inf)
    bands = []
    for low, high in pairwise(edges.tolist()):
        rows = pool.choose((amounts >= low) & (amounts < high))
        certain = rows.confidence >= threshold
        bands.append(
            Band(
                low=round(low, 4),
                high=round(high, 4),
                samples=len(certain),
                accuracy=_share(rows.right),
                confidence=round(float(rows.confidence.mean()), 4),
                certain=_share(certain),
                certain_accuracy=_share(rows.right[certain]),
            )
        )
    return bands


def _three_digits(value: float, towards: Callable[[float], int]) -> float:
    """Round towards the poor end, so that no face of the limit's own band is beyond it."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{towards(round(value / step, 6)) * step:.3g}")


def beyond(limits: QualityLimits, rows: Rows) -> NDArray[np.bool_]:
    """bool [N]: rows beyond at least one limit. Limits of measures that `rows` lacks are ignored."""
    held_back = np.zeros(len(rows.right), np.bool_)
    for limit in limits.limits:
        amounts = np.abs(rows.measured.get(limit.measure, np.empty(0)))
        if not len(amounts):
            continue
        if limit.min is not None:
            held_back |= amounts < limit.min
        if limit.max is not None:
            held_back |= amounts > limit.max
    return held_back


def confirm(results: ProbeResults, limits: QualityLimits, threshold: float) -> dict[str, dict[str, Metric]]:
    """What the limits give on a split that nothing was chosen on, clean and corrupted."""
    return {
        "quality": _with_and_without(results.found, limits, threshold),
        "quality_corrupted": _with_and_without(joined(list(results.corrupted.values())), limits, threshold),
        "quality_not_faces": _with_and_without(results.not_faces, limits, threshold),
    }


def _with_and_without(rows: Rows, limits: QualityLimits, threshold: float) -> dict[str, Metric]:
    confident, poor = rows.confidence >= threshold, beyond(limits, rows)
    certain, held_back = confident & ~poor, confident & poor
    return {
        "coverage": _metric(certain),
        "coverage_without_limits": _metric(confident),
        "selective_accuracy": _metric(rows.right[certain]),
        "selective_accuracy_without_limits": _metric(rows.right[confident]),
        "held_back_accuracy": _metric(rows.right[held_back]),
    }


def joined(parts: list[Rows]) -> Rows:
    whole, *others = parts
    for other in others:
        whole = whole.join(other)
    return whole


def _certain_accuracy(rows: Rows, threshold: float) -> float:
    return _share(rows.right[rows.confidence >= threshold])


def _metric(right: NDArray[np.bool_]) -> Metric:
    return Metric(value=_share(right), samples=len(right))


def _share(right: NDArray[np.bool_]) -> float:
    return round(float(right.mean()), 4) if len(right) else 0.0
