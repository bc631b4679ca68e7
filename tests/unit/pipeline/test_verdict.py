"""Which faces are uncertain, and for which reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.core.arrays import FaceQuality
from service.core.manifest import QualityLimit, QualityLimits, VerdictRule
from service.pipeline.verdict import reasons

GOOD = FaceQuality(120, 0.4, 0.5, 0.2, roll_degrees=0, yaw=0, pitch=0, occlusion=0.3, face_likeness=0.9)
LIMITS = (
    QualityLimit(code="blurred", measure="sharpness", min=0.1, bands=()),
    QualityLimit(code="too_bright", measure="brightness", max=0.9, bands=()),
    QualityLimit(code="occluded", measure="occlusion", max=0.95, bands=()),
    QualityLimit(code="turned_away", measure="yaw", max=0.6, bands=()),
    QualityLimit(code="turned_away", measure="pitch", max=0.5, bands=()),
    QualityLimit(code="no_clear_face", measure="face_likeness", min=0.2, bands=()),
)
RULE = VerdictRule(
    threshold=0.6,
    coverage=1,
    accuracy=1,
    data="none",
    quality=QualityLimits(limits=LIMITS, rule="none", data="none"),
)


def test_a_good_confident_face_is_certain() -> None:
    assert reasons(0.6, GOOD, RULE) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sharpness": 0.1}, []),
        ({"sharpness": 0.0999}, ["blurred"]),
        ({"brightness": 0.9}, []),
        ({"brightness": 0.91}, ["too_bright"]),
        ({"occlusion": 0.95}, []),
        ({"occlusion": 0.951}, ["occluded"]),
        ({"yaw": -0.61}, ["turned_away"]),
        ({"yaw": 0.61, "pitch": -0.9}, ["turned_away"]),
        ({"roll_degrees": 180}, []),
        ({"sharpness": 0, "yaw": 1}, ["blurred", "turned_away"]),
        ({"occlusion": 0.96, "yaw": 0.7}, ["turned_away"]),
        ({"face_likeness": 0.2}, []),
        ({"face_likeness": 0.19}, ["no_clear_face"]),
        ({"face_likeness": 0.19, "roll_degrees": 90}, ["no_clear_face"]),
        ({"face_likeness": 0.19, "roll_degrees": -30}, ["tilted"]),
        ({"face_likeness": 0.19, "roll_degrees": None}, ["no_clear_face"]),
        ({"yaw": None, "pitch": None, "roll_degrees": None}, []),
    ],
)
def test_a_value_beyond_a_limit_is_a_reason(changes: dict[str, float | None], expected: list[str]) -> None:
    assert reasons(0.9, replace(GOOD, **changes), RULE) == expected  # type: ignore[arg-type]
    assert reasons(0.59, replace(GOOD, **changes), RULE) == ["low_confidence", *expected]  # type: ignore[arg-type]


def test_a_model_without_limits_has_only_low_confidence_as_a_reason() -> None:
    plain = RULE.model_copy(update={"quality": None})
    assert reasons(0.9, replace(GOOD, sharpness=0), plain) == []
    assert reasons(0.5, replace(GOOD, sharpness=0), plain) == ["low_confidence"]
