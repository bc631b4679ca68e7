"""Why a face is uncertain."""

from __future__ import annotations

from service.core.arrays import FaceQuality
from service.core.manifest import QualityLimit, VerdictRule
from service.core.seen import Reason
from service.vision.level import is_tilted


def reasons(confidence: float, quality: FaceQuality, rule: VerdictRule) -> list[Reason]:
    """Every reason, in the manifest's order; empty if the face is certain."""
    found: list[Reason] = [] if confidence >= rule.threshold else ["low_confidence"]
    limits = () if rule.quality is None else rule.quality.limits
    found += [limit.code for limit in limits if _beyond(limit, quality)]
    if "turned_away" in found and "occluded" in found:
        # The hint of covered faces was learned on faces that look ahead: half of a profile looks covered.
        found.remove("occluded")
    if "no_clear_face" in found and is_tilted(quality.roll_degrees):
        found[found.index("no_clear_face")] = "tilted"
    # One code may have limits on several measures.
    return list(dict.fromkeys(found))


def _beyond(limit: QualityLimit, quality: FaceQuality) -> bool:
    value: float | None = getattr(quality, limit.measure)
    if value is None:
        return False
    return (limit.min is not None and abs(value) < limit.min) or (
        limit.max is not None and abs(value) > limit.max
    )
