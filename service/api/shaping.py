"""Converts results of the pipeline and errors to models of the API, with rounded numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from service.api.schemas import (
    Box,
    DetectionQuery,
    Engagement,
    Experts,
    Face,
    Group,
    GroupImage,
    Heatmap,
    ImageAnswer,
    ImageSize,
    Include,
    Landmarks,
    Point,
    Problem,
    Quality,
)
from service.api.stream import Smoothed, TrackedFace, TrackSummary
from service.core.arrays import Drawing, FaceQuality, corner_and_size
from service.core.errors import Internal, ServiceError
from service.core.seen import Seen, SeenGroup
from service.tracking.record import Followed, TrackTotals

# Emotion weights of Sharma et al., "Student Engagement Detection Using Emotion Analysis, Eye Tracking and
# Head Movement with Machine Learning" (arXiv 1909.12913), see docs/explanation/engagement.md.
ENGAGEMENT_WEIGHTS = {
    "neutral": 0.9,
    "happiness": 0.6,
    "surprise": 0.6,
    "sadness": 0.3,
    "fear": 0.3,
    "anger": 0.25,
    "disgust": 0.2,
}


def shape_image(seen: Seen, query: DetectionQuery) -> ImageAnswer:
    return ImageAnswer(image=shape_size(seen), faces_found=seen.faces_found, faces=shape_faces(seen, query))


def shape_group(seen: SeenGroup) -> GroupImage:
    group = Group(min_faces=seen.min_faces)
    if seen.probabilities is not None:
        group.face_count = seen.face_count
        group.probabilities = _by_label(seen.labels, seen.probabilities)
    return GroupImage(image=shape_size(seen), group=group)


def shape_size(seen: Seen | SeenGroup) -> ImageSize:
    return ImageSize(width=seen.width, height=seen.height)


def shape_faces(seen: Seen, query: DetectionQuery) -> list[Face]:
    """Every face, with the parts that the query includes."""
    boxes = corner_and_size(seen.boxes).tolist()
    return [_face(seen, index, box, query) for index, box in enumerate(boxes)]


def shape_tracked(seen: Seen, followed: Sequence[Followed], query: DetectionQuery) -> list[TrackedFace]:
    """The faces of one frame, each with its track."""
    return [
        TrackedFace(**dict(face), track=track.number, smoothed=_smoothed(track, seen.labels))
        for face, track in zip(shape_faces(seen, query), followed, strict=True)
    ]


def shape_track(track: TrackTotals, labels: Sequence[str]) -> TrackSummary:
    return TrackSummary(
        track=track.number,
        first_seen_s=round(track.first_seen_s, 3),
        last_seen_s=round(track.last_seen_s, 3),
        frames=track.frames,
        probabilities=_by_label(labels, track.probabilities),
        time_share=_by_label(labels, track.time_share, digits=4),
        certain=round(track.certain, 4),
    )


def to_problem(error: ServiceError, request_id: str) -> Problem:
    """The problem document of an error. The details of an `Internal` error are hidden from the caller."""
    detail = "The failure was logged with this request's id." if isinstance(error, Internal) else error.detail
    return Problem(
        type=f"urn:expressnet:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=detail,
        code=error.code,
        request_id=request_id,
    )


def _face(seen: Seen, index: int, box: list[float], query: DetectionQuery) -> Face:
    emotion, confidence = seen.emotions[index], seen.confidences[index]
    face = Face(
        box=_box(box),
        emotion=emotion,
        confidence=round(confidence, 6),
        agreement=round(10 * float(seen.agreement[index]), 1),
        verdict=seen.verdict(index),
        reasons=seen.reasons[index] or None,
        probabilities=_by_label(seen.labels, seen.probabilities[index]),
        detection_confidence=None if seen.scores is None else round(float(seen.scores[index]), 4),
    )
    if seen.landmarks is not None and query.includes(Include.landmarks):
        face.landmarks = _landmarks(seen.landmarks[index])
    if query.includes(Include.quality):
        face.quality = _quality(seen.quality[index])
    if query.includes(Include.experts):
        face.experts = _experts(seen.gates[index])
    if query.includes(Include.engagement):
        face.engagement = _engagement(emotion, confidence)
    if index < len(seen.drawings):
        face.heatmap = _heatmap(seen.drawings[index])
    return face


def _by_label(labels: Sequence[str], row: NDArray[np.floating], digits: int = 6) -> dict[str, float]:
    return {label: round(value, digits) for label, value in zip(labels, row.tolist(), strict=True)}


def _box(place: list[float]) -> Box:
    x, y, width, height = (round(value, 2) for value in place)
    return Box(x=x, y=y, width=width, height=height)


def _landmarks(points: NDArray[np.float32]) -> Landmarks:
    return Landmarks(
        **{
            name: Point(x=round(x, 2), y=round(y, 2))
            for name, (x, y) in zip(Landmarks.model_fields, points.tolist(), strict=True)
        }
    )


def _quality(measured: FaceQuality) -> Quality:
    return Quality(
        **{name: None if value is None else round(value, 4) for name, value in asdict(measured).items()}
    )


def _experts(gates: NDArray[np.float32]) -> Experts:
    large_kernel, fused = ([round(weight, 6) for weight in row] for row in gates.tolist())
    return Experts(large_kernel=large_kernel, fused=fused)


def _heatmap(drawing: Drawing) -> Heatmap:
    return Heatmap(
        png=drawing.png,
        box=_box(corner_and_size(drawing.box).tolist()),
        largest_fall=round(drawing.largest_fall, 6),
    )


def _engagement(emotion: str, confidence: float) -> Engagement | None:
    weight = ENGAGEMENT_WEIGHTS.get(emotion)
    return None if weight is None else Engagement(index=round(confidence * weight, 6))


def _smoothed(track: Followed, labels: Sequence[str]) -> Smoothed:
    return Smoothed(
        emotion=labels[track.best],
        confidence=round(float(track.probabilities[track.best]), 6),
        verdict=track.verdict,
        probabilities=_by_label(labels, track.probabilities),
    )
