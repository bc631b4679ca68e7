"""What an engine is: two small protocols."""

from __future__ import annotations

from typing import Protocol

from service.arrays import Classification, Detections, Faces, Image


class Engine(Protocol):
    """The life of a model, wherever it runs."""

    async def warm_up(self) -> None:
        """Load, and run every shape that will be served until it is as fast as it gets."""

    async def ping(self) -> None:
        """Return if the model can answer; raise `EngineUnavailable` if it cannot. Cheap under load."""

    async def close(self) -> None:
        """Let running calls finish and free what the model holds."""


class Classifier(Engine, Protocol):
    async def classify(self, faces: Faces) -> Classification:
        """Raises `EngineUnavailable` when the engine cannot answer."""


class Detector(Engine, Protocol):
    async def detect(self, image: Image, min_face_px: float, threshold: float) -> Detections:
        """Faces at least `min_face_px` high that score at least `threshold`. Raises `EngineUnavailable`."""
