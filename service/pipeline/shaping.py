"""Arrays to response models; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from service.api.schemas import (
    Box,
    EmotionQuery,
    Engagement,
    Experts,
    Face,
    Group,
    Heatmap,
    Include,
    Landmarks,
    Point,
    Quality,
)
from service.core.arrays import Classification, Detections, Drawing, FaceQuality
from service.core.manifest import ClassifierManifest
from service.pipeline.verdict import reasons

# Emotion weights of Sharma et al., "Student Engagement Detection Using Emotion Analysis, Eye Tracking and
# Head Movement with Machine Learning" (arXiv 1909.12913), as implementations have them: docs/engagement.md.
ENGAGEMENT_WEIGHTS = {
    "neutral": 0.9,
    "happiness": 0.6,
    "surprise": 0.6,
    "sadness": 0.3,
    "fear": 0.3,
    "anger": 0.25,
    "disgust": 0.2,
}

GROUP_STEP = 0.05


def shape_faces(
    boxes: NDArray[np.float32],
    detections: Detections | None,
    classification: Classification,
    quality: Sequence[FaceQuality],
    drawings: Sequence[Drawing],
    manifest: ClassifierManifest,
    query: EmotionQuery,
) -> list[Face]:
    """boxes: float32 [N,4] xyxy px; detections: None where the caller brought a face crop; N faces out.

    drawings: heatmaps of the first faces, if any.
    """
    faces = []
    for index, box in enumerate(boxes):
        row: list[float] = classification.probabilities[index].tolist()
        confidence = max(row)
        emotion = manifest.labels[row.index(confidence)]
        seen = replace(quality[index], occlusion=float(classification.occlusion[index, 0]))
        doubts = reasons(confidence, seen, manifest.verdict)
        face = Face(
            box=_box(box),
            emotion=emotion,
            confidence=round(confidence, 6),
            verdict="uncertain" if doubts else "certain",
            reasons=doubts or None,
            probabilities={label: round(p, 6) for label, p in zip(manifest.labels, row, strict=True)},
            detection_confidence=None if detections is None else round(float(detections.scores[index]), 4),
        )
        if detections is not None and query.includes(Include.landmarks):
            face.landmarks = _landmarks(detections.landmarks[index])
        if query.includes(Include.quality):
            face.quality = _quality(seen)
        if query.includes(Include.experts):
            face.experts = _experts(classification.gates[index])
        if query.includes(Include.engagement):
            face.engagement = _engagement(emotion, confidence)
        if index < len(drawings):
            face.heatmap = _heatmap(drawings[index])
        faces.append(face)
    return faces


def shape_group(probabilities: NDArray[np.float32], labels: Sequence[str], min_faces: int) -> Group:
    """The mean over an image's N faces, or nothing of them if they are few. probabilities: float32 [N,C]."""
    faces = len(probabilities)
    if faces < min_faces:
        return Group(min_faces=min_faces)
    # Finer would be false precision, and would tell more of the one face by which two images differ.
    steps = np.rint(probabilities.mean(axis=0, dtype=np.float64) / GROUP_STEP)
    shares = [round(float(step) * GROUP_STEP, 6) for step in steps]
    return Group(min_faces=min_faces, face_count=faces, probabilities=dict(zip(labels, shares, strict=True)))


def _box(xyxy: NDArray[np.float32]) -> Box:
    left, top, right, bottom = xyxy.tolist()
    return Box(x=round(left, 2), y=round(top, 2), width=round(right - left, 2), height=round(bottom - top, 2))


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
    return Heatmap(png=drawing.png, box=_box(drawing.box), largest_fall=round(drawing.largest_fall, 6))


def _engagement(emotion: str, confidence: float) -> Engagement | None:
    weight = ENGAGEMENT_WEIGHTS.get(emotion)
    return None if weight is None else Engagement(index=round(confidence * weight, 6))
