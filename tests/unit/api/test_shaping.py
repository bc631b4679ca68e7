"""Results of the pipeline become models of the API."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from service.api.schemas import (
    EmotionQuery,
    Face,
    GroupAnswer,
    GroupBatchAnswer,
    ModelName,
)
from service.api.shaping import ENGAGEMENT_WEIGHTS, shape_faces, shape_group, shape_image
from service.core.arrays import Classification, Detections, Drawing, FaceQuality
from service.core.manifest import EMOTIONS, QualityLimit, QualityLimits, VerdictRule
from service.core.seen import Reason, Seen
from service.pipeline.groups import GROUP_STEP, group_of
from service.pipeline.verdict import reasons

RULE = VerdictRule(
    threshold=0.5,
    coverage=1,
    accuracy=1,
    data="none",
    quality=QualityLimits(
        limits=(
            QualityLimit(code="too_small", measure="size_px", min=10, bands=()),
            QualityLimit(code="occluded", measure="occlusion", max=0.9, bands=()),
        ),
        rule="none",
        data="none",
    ),
)
DETECTIONS = Detections(
    np.array([[10.125, 20, 30.5, 50], [0, 0, 8, 9]], np.float32),
    np.array([0.99, 0.91234], np.float32),
    np.arange(20, dtype=np.float32).reshape(2, 5, 2),
)
QUALITY = [
    FaceQuality(20.123456, 100, 0.5, 0.1, roll_degrees=-3.00004, yaw=0.25, pitch=-0.5),
    FaceQuality(8, 1, 0.2, 0, roll_degrees=None, yaw=None, pitch=None),
]
DRAWING = Drawing("iVBORw0=", np.array([-5, 10, 15, 30], np.float32), 0.25)


def classified(*emotions: str, confidence: float = 0.93) -> Classification:
    rows = np.full((len(emotions), len(EMOTIONS)), (1 - confidence) / 7, np.float32)
    for row, emotion in zip(rows, emotions, strict=True):
        row[EMOTIONS.index(emotion)] = confidence
    gates = np.tile(np.array([[0, 0.25, 0.75, 0], [0.5, 0, 0, 0.5]], np.float32), (len(emotions), 1, 1))
    occlusion = np.linspace(0.25, 0.75, len(emotions), dtype=np.float32)[:, None]
    return Classification(rows, gates, occlusion, 1 - occlusion)


def image(
    classification: Classification,
    detections: Detections | None = DETECTIONS,
    drawings: tuple[Drawing, ...] = (),
    faces_found: int | None = None,
) -> Seen:
    count = len(classification.probabilities)
    quality = [
        replace(measured, occlusion=float(covered), face_likeness=float(likeness))
        for measured, (covered,), (likeness,) in zip(
            QUALITY, classification.occlusion, classification.face_likeness, strict=False
        )
    ]
    confidences = [float(row.max()) for row in classification.probabilities]
    return Seen(
        width=640,
        height=480,
        faces_found=count if faces_found is None else faces_found,
        boxes=DETECTIONS.boxes[:count],
        scores=None if detections is None else detections.scores[:count],
        landmarks=None if detections is None else detections.landmarks[:count],
        labels=EMOTIONS,
        probabilities=classification.probabilities,
        agreement=classification.probabilities.max(axis=1) / 2,
        gates=classification.gates,
        quality=quality,
        reasons=[reasons(*face, RULE) for face in zip(confidences, quality, strict=True)],
        drawings=list(drawings),
    )


def shaped(
    classification: Classification,
    include: str = "",
    detections: Detections | None = DETECTIONS,
    drawings: tuple[Drawing, ...] = (),
) -> list[Face]:
    return shape_faces(image(classification, detections, drawings), EmotionQuery(include=include))


def test_faces_keep_their_order_and_their_arrays() -> None:
    first, second = shaped(classified("happiness", "fear"))
    assert first.box.model_dump() == {"x": 10.12, "y": 20, "width": 20.38, "height": 30}
    assert second.box.model_dump() == {"x": 0, "y": 0, "width": 8, "height": 9}
    assert (first.emotion, second.emotion) == ("happiness", "fear")
    assert (first.detection_confidence, second.detection_confidence) == (0.99, 0.9123)
    assert first.confidence == first.probabilities["happiness"] == 0.93
    assert (first.agreement, second.agreement) == (4.7, 4.7)  # of ten people, to 0.1


def test_probabilities_come_in_manifest_order_and_sum_to_one() -> None:
    (face,) = shaped(classified("anger", confidence=1 / 3))
    assert tuple(face.probabilities) == EMOTIONS
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert face.confidence == max(face.probabilities.values())


@pytest.mark.parametrize(
    ("confidence", "verdict"), [(0.93, "certain"), (0.5, "certain"), (0.499, "uncertain"), (0.2, "uncertain")]
)
def test_verdict_is_certain_from_the_threshold_on(confidence: float, verdict: str) -> None:
    (face,) = shaped(classified("neutral", confidence=confidence))
    assert face.verdict == verdict
    assert face.reasons == (None if verdict == "certain" else ["low_confidence"])


@pytest.mark.parametrize("include", ["", "quality"])
def test_a_poor_face_is_uncertain_with_and_without_quality(include: str) -> None:
    first, second = shaped(classified("happiness", "happiness"), include)
    assert (first.verdict, first.reasons) == ("certain", None)
    assert (second.verdict, second.reasons) == ("uncertain", ["too_small"])
    _, doubtful = shaped(classified("happiness", "happiness", confidence=0.4), include)
    assert doubtful.reasons == ["low_confidence", "too_small"]


@pytest.mark.parametrize("include", ["", "quality"])
def test_a_face_that_looks_covered_is_uncertain(include: str) -> None:
    answer = replace(classified("happiness", "happiness"), occlusion=np.array([[0.95], [0.9]], np.float32))
    first, second = shaped(answer, include)
    assert (first.verdict, first.reasons) == ("uncertain", ["occluded"])
    assert second.reasons == ["too_small"]
    assert (None if first.quality is None else first.quality.occlusion) == (0.95 if include else None)


def test_the_largest_faces_have_the_heatmaps() -> None:
    first, second = shaped(classified("happiness", "happiness"), "heatmap", drawings=(DRAWING,))
    assert first.heatmap is not None
    assert first.heatmap.model_dump() == {
        "png": "iVBORw0=",
        "box": {"x": -5, "y": 10, "width": 20, "height": 20},
        "largest_fall": 0.25,
    }
    assert second.heatmap is None


def test_optional_fields_are_absent_by_default() -> None:
    (face,) = shaped(classified("neutral"))
    assert set(face.model_dump(exclude_none=True)) == {
        "box",
        "detection_confidence",
        "emotion",
        "confidence",
        "agreement",
        "verdict",
        "probabilities",
    }


def test_include_adds_the_optional_fields() -> None:
    first, second = shaped(classified("happiness", "contempt"), "landmarks,quality,experts,engagement")
    assert first.landmarks is not None
    assert first.experts is not None
    assert first.engagement is not None
    assert list(first.landmarks.model_dump()) == [
        "left_eye",
        "right_eye",
        "nose",
        "left_mouth",
        "right_mouth",
    ]
    assert first.landmarks.nose.model_dump() == {"x": 4, "y": 5}
    assert second.landmarks is not None
    assert second.landmarks.left_eye.model_dump() == {"x": 10, "y": 11}
    assert first.experts.large_kernel == [0, 0.25, 0.75, 0]
    assert first.experts.fused == [0.5, 0, 0, 0.5]
    assert first.quality is not None
    assert first.quality.model_dump() == {
        "size_px": 20.1235,
        "sharpness": 100,
        "brightness": 0.5,
        "contrast": 0.1,
        "occlusion": 0.25,
        "face_likeness": 0.75,
        "roll_degrees": -3,
        "yaw": 0.25,
        "pitch": -0.5,
    }
    assert second.quality is not None
    assert second.quality.size_px == 8
    assert second.quality.yaw is None


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_engagement_is_confidence_times_the_published_weight(emotion: str) -> None:
    (face,) = shaped(classified(emotion), "engagement")
    weight = ENGAGEMENT_WEIGHTS.get(emotion)
    if emotion == "contempt":
        assert face.engagement is None
    else:
        assert weight is not None
        assert face.engagement is not None
        assert face.engagement.index == pytest.approx(0.93 * weight, abs=1e-6)


def test_a_face_crop_has_no_detection() -> None:
    (face,) = shaped(classified("neutral"), "landmarks", detections=None)
    assert face.detection_confidence is None
    assert face.landmarks is None


def test_an_image_without_faces_gives_an_empty_list() -> None:
    assert shaped(classified()) == []


def test_faces_found_may_exceed_the_number_of_faces() -> None:
    answer = shape_image(image(classified("fear"), faces_found=7), EmotionQuery())
    assert (answer.faces_found, len(answer.faces)) == (7, 1)
    assert answer.image.model_dump() == {"width": 640, "height": 480}
    assert list(answer.model_dump()) == ["image", "faces_found", "faces"]


def crowd(probabilities: NDArray[np.float32]) -> Seen:
    count = len(probabilities)
    boxes = np.zeros((count, 4), np.float32)
    reasons: list[list[Reason]] = [[] for _ in range(count)]
    return replace(image(classified()), boxes=boxes, probabilities=probabilities, reasons=reasons)


def test_a_group_has_the_mean_rounded_to_steps() -> None:
    rows = np.concatenate([classified("fear", confidence=1.0).probabilities] * 3)
    rows = np.concatenate([rows, classified("anger", "anger", confidence=0.93).probabilities])
    group = shape_group(group_of(crowd(rows), 5)).group
    assert (group.min_faces, group.face_count) == (5, 5)
    assert group.probabilities is not None
    assert tuple(group.probabilities) == EMOTIONS
    assert group.probabilities["fear"] == 0.6
    assert group.probabilities["anger"] == 0.35  # the mean is 0.372
    assert all(
        (share / GROUP_STEP) == pytest.approx(round(share / GROUP_STEP))
        for share in group.probabilities.values()
    )


@pytest.mark.parametrize("faces", range(5))
def test_a_group_of_too_few_faces_hides_even_their_number(faces: int) -> None:
    group = group_of(crowd(classified(*["fear"] * faces).probabilities), 5)
    assert (group.face_count, group.probabilities) == (0, None)
    assert shape_group(group).model_dump(exclude_none=True) == {
        "image": {"width": 640, "height": 480},
        "group": {"min_faces": 5},
    }


@pytest.mark.parametrize("answer", [GroupAnswer, GroupBatchAnswer])
def test_faces_are_no_valid_group_and_the_error_does_not_quote_them(answer: type[BaseModel]) -> None:
    faces = shape_image(image(classified("fear", confidence=0.87654)), EmotionQuery())
    fields = {
        "request_id": "a",
        "model": ModelName(name="tiny", version="1", prior="training"),
        **dict(faces),
    }
    with pytest.raises(ValidationError) as caught:
        answer.model_validate(fields | {"results": [{"index": 0, "result": faces}]})
    assert "8765" not in str(caught.value)
    assert "fear" not in str(caught.value)
