"""Results of the pipeline (`Seen`), made without a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.core.arrays import FaceQuality
from service.core.manifest import EMOTIONS
from service.core.seen import Seen, Verdict


@dataclass(frozen=True)
class FaceSeen:
    """One face of `seen`. The labels other than `emotion` share the rest of the probability equally.

    box: left, top, width, height in px.
    """

    emotion: str = "fear"
    confidence: float = 0.75
    verdict: Verdict = "certain"
    box: tuple[float, float, float, float] = (10, 20, 30, 40)


def seen(*faces: FaceSeen, labels: Sequence[str] = EMOTIONS, width: int = 400, height: int = 300) -> Seen:
    """The result for an image with these faces."""
    boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    probabilities = np.array(
        [
            [
                face.confidence if label == face.emotion else (1 - face.confidence) / (len(labels) - 1)
                for label in labels
            ]
            for face in faces
        ],
        np.float32,
    ).reshape(-1, len(labels))
    return Seen(
        width=width,
        height=height,
        faces_found=len(faces),
        boxes=boxes,
        scores=np.full(len(faces), 0.95, np.float32),
        landmarks=np.zeros((len(faces), 5, 2), np.float32),
        labels=tuple(labels),
        probabilities=probabilities,
        agreement=probabilities.max(axis=1, initial=0),
        gates=np.zeros((len(faces), 2, 4), np.float32),
        quality=[FaceQuality(min(face.box[2:]), 0.4, 0.5, 0.2, 0, 0, 0, 0.25) for face in faces],
        reasons=[[] if face.verdict == "certain" else ["low_confidence"] for face in faces],
        drawings=[],
    )
