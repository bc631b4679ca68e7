"""In group mode no part of the service answers for a single face."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.schemas import EmotionQuery, Group, GroupImage
from service.assembly import Engines, assemble
from service.core.deadline import NEVER
from service.core.errors import InvalidRequest, SettingsError
from service.core.timings import Timings
from service.http.answering import answer_with
from service.settings import Settings
from tests.conftest import encoded
from tests.fake_engine import FakeClassifier, FakeDetector


async def test_groups_are_shaped_and_counted_as_groups(astronaut: NDArray[np.uint8]) -> None:
    async with assemble(Settings(aggregate_only=5), Engines(FakeClassifier(), FakeDetector())) as assembly:
        answer = answer_with(assembly.pipeline, assembly.metrics)
        few = await answer(encoded(np.tile(astronaut, (2, 2, 1))), EmotionQuery(), NEVER, Timings())
        many = await answer(encoded(np.tile(astronaut, (6, 6, 1))), EmotionQuery(), NEVER, Timings())
    assert isinstance(few.model, GroupImage)
    assert few.model.group == Group(min_faces=5)
    assert isinstance(many.model, GroupImage)
    assert many.model.group.face_count == 36, "a group has more faces than a caller gets by default"
    counted = {
        name: assembly.metrics.registry.get_sample_value(f"expressnet_{name}")
        for name in ("faces_per_image_count", "faces_per_image_sum", "confidence_count")
    }
    assert counted == {"faces_per_image_count": 2, "faces_per_image_sum": 36, "confidence_count": 0}


@pytest.mark.parametrize(
    "query",
    [
        EmotionQuery(detect=False),
        EmotionQuery(include="landmarks"),
        EmotionQuery(max_faces=5),
        EmotionQuery(min_face_px=33),
        EmotionQuery(min_detection_confidence=0.5),
    ],
)
async def test_a_query_cannot_choose_the_faces_of_a_group(query: EmotionQuery, astronaut_jpeg: bytes) -> None:
    classifier = FakeClassifier()
    async with assemble(Settings(aggregate_only=5), Engines(classifier, FakeDetector())) as assembly:
        with pytest.raises(InvalidRequest, match="group mode"):
            await answer_with(assembly.pipeline, assembly.metrics)(astronaut_jpeg, query, NEVER, Timings())
    assert classifier.batches == []


def test_group_mode_has_no_pipeline_for_single_faces() -> None:
    with pytest.raises(SettingsError, match="AGGREGATE_ONLY"):
        _ = assemble(Settings(aggregate_only=5), Engines(FakeClassifier(), FakeDetector())).faces
