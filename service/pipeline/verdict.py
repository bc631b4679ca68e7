"""Why a face is uncertain."""

from __future__ import annotations

from service.core.arrays import FaceQuality
from service.core.manifest import QualityLimit, VerdictRule
from service.core.seen import Reason


def reasons(confidence: float, quality: FaceQuality, rule: VerdictRule) -> list[Reason]:
    """Every reason, in the manifest's order; empty if the face is certain."""
    found: list[Reason] = [] if confidence >= rule.threshold else ["low_confidence"]
    limits = () if rule.quality is None else rule.quality.limits
    # One code may have limits on several measures.
    return list(dict.fromkeys([*found, *(limit.code for limit in limits if _beyond(limit, quality))]))


def _beyond(limit: QualityLimit, quality: FaceQuality) -> bool:
    value: float | None = getattr(quality, limit.measure)
    if value is None:
        return False
    return (limit.min is not None and abs(value) < limit.min) or (
        limit.max is not None and abs(value) > limit.max
    )
