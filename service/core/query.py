"""What a caller chooses about one image."""

from __future__ import annotations

from dataclasses import dataclass

MAX_FACES = 128


@dataclass(frozen=True, slots=True)
class Query:
    """max_faces: the largest faces are kept. min_face_px: in px of the image.

    detect: False takes the whole image as one face. heatmaps: whether the largest faces get a heatmap.
    turned: whether an image without a sure face is also searched turned by quarters. prior: in its standard
    form; None is the service's.
    """

    max_faces: int = 32
    min_face_px: float = 32
    min_detection_confidence: float = 0.9
    detect: bool = True
    heatmaps: bool = False
    turned: bool = True
    prior: str | None = None
