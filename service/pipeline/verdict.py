"""Why an answer is not to be relied on."""

from __future__ import annotations

from service.api.schemas import Reason
from service.core.arrays import FaceQuality
from service.core.manifest import QualityLimit, Verdict


def reasons(confidence: float, quality: FaceQuality, verdict: Verdict) -> list[Reason]:
    """Every reason, in the manifest's order; none where the answer is certain."""
    found: list[Reason] = [] if confidence >= verdict.threshold else ["low_confidence"]
    limits = () if verdict.quality is None else verdict.quality.limits
    # One code may have limits on several measures.
    return list(dict.fromkeys([*found, *(limit.code for limit in limits if _beyond(limit, quality))]))


def _beyond(limit: QualityLimit, quality: FaceQuality) -> bool:
    value: float | None = getattr(quality, limit.measure)
    if value is None:
        return False
    return (limit.least is not None and abs(value) < limit.least) or (
        limit.most is not None and abs(value) > limit.most
    )
