"""Arrays to response models."""

from __future__ import annotations

import numpy as np
import pytest

from service.arrays import Classification, Detections, FaceQuality
from service.manifest import EMOTIONS, ClassifierManifest, Crop, Input, Training, Verdict
from service.schemas import EmotionQuery, Face
from service.shaping import ENGAGEMENT_WEIGHTS, shape_faces

MANIFEST = ClassifierManifest(
    name="tiny",
    version="1",
    sha256="0" * 64,
    labels=EMOTIONS,
    input=Input(size=48, crop=Crop(left_eye=(0.3, 0.4), right_eye=(0.7, 0.4), mouth=(0.5, 0.8))),
    verdict=Verdict(threshold=0.5, coverage=1, accuracy=1, data="none"),
    training=Training(data=(), licences=(), config={}),
    intended_use="tests",
    limits=(),
)
DETECTIONS = Detections(
    np.float32([[10.125, 20, 30.5, 50], [0, 0, 8, 9]]),
    np.float32([0.99, 0.91234]),
    np.arange(20, dtype=np.float32).reshape(2, 5, 2),
)
QUALITY = [
    FaceQuality(20.123456, 100, 0.5, 0.1, roll_degrees=-3.00004, yaw=0.25),
    FaceQuality(8, 1, 0.2, 0, roll_degrees=None, yaw=None),
]


def sure_of(*emotions: str, confidence: float = 0.93) -> Classification:
    rows = np.full((len(emotions), len(EMOTIONS)), (1 - confidence) / 7, np.float32)
    for row, emotion in zip(rows, emotions, strict=True):
        row[EMOTIONS.index(emotion)] = confidence
    gates = np.tile(np.float32([[0, 0.25, 0.75, 0], [0.5, 0, 0, 0.5]]), (len(emotions), 1, 1))
    return Classification(rows, gates)


def shaped(
    classification: Classification, include: str = "", detections: Detections | None = DETECTIONS
) -> list[Face]:
    boxes = DETECTIONS.boxes[: len(classification.probabilities)]
    quality = QUALITY[: len(boxes)] if "quality" in include else None
    return shape_faces(boxes, detections, classification, quality, MANIFEST, EmotionQuery(include=include))


def test_faces_keep_their_order_and_their_arrays() -> None:
    first, second = shaped(sure_of("happiness", "fear"))
    assert first.box.model_dump() == {"x": 10.12, "y": 20, "width": 20.38, "height": 30}
    assert second.box.model_dump() == {"x": 0, "y": 0, "width": 8, "height": 9}
    assert (first.emotion, second.emotion) == ("happiness", "fear")
    assert (first.detection_confidence, second.detection_confidence) == (0.99, 0.9123)
    assert first.confidence == first.probabilities["happiness"] == 0.93


def test_probabilities_come_in_manifest_order_and_sum_to_one() -> None:
    (face,) = shaped(sure_of("anger", confidence=1 / 3))
    assert tuple(face.probabilities) == EMOTIONS
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert face.confidence == max(face.probabilities.values())


@pytest.mark.parametrize(
    ("confidence", "verdict"), [(0.93, "certain"), (0.5, "certain"), (0.499, "uncertain"), (0.2, "uncertain")]
)
def test_verdict_is_certain_from_the_threshold_on(confidence: float, verdict: str) -> None:
    (face,) = shaped(sure_of("neutral", confidence=confidence))
    assert face.verdict == verdict


def test_nothing_is_included_that_was_not_asked_for() -> None:
    (face,) = shaped(sure_of("neutral"))
    assert set(face.model_dump(exclude_none=True)) == {
        "box",
        "detection_confidence",
        "emotion",
        "confidence",
        "verdict",
        "probabilities",
    }


def test_everything_is_included_that_was_asked_for() -> None:
    first, second = shaped(sure_of("happiness", "contempt"), "landmarks,quality,experts,engagement")
    assert first.landmarks is not None
    assert first.experts is not None
    assert first.engagement is not None
    assert list(first.landmarks.model_dump()) == [
        "left_eye",
        "right_eye",
        "nose",
        "mouth_left",
        "mouth_right",
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
        "roll_degrees": -3,
        "yaw": 0.25,
    }
    assert second.quality is not None
    assert second.quality.size_px == 8
    assert second.quality.yaw is None


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_engagement_is_confidence_times_the_published_weight(emotion: str) -> None:
    (face,) = shaped(sure_of(emotion), "engagement")
    weight = ENGAGEMENT_WEIGHTS.get(emotion)
    if emotion == "contempt":
        assert face.engagement is None
    else:
        assert weight is not None
        assert face.engagement is not None
        assert face.engagement.index == pytest.approx(0.93 * weight, abs=1e-6)


def test_a_face_crop_has_no_detection() -> None:
    (face,) = shaped(sure_of("neutral"), "landmarks", detections=None)
    assert face.detection_confidence is None
    assert face.landmarks is None


def test_no_faces_are_no_faces() -> None:
    assert shaped(sure_of()) == []
