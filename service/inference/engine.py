"""What an engine is: a few small protocols."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from service.core.arrays import Classification, Detections, Faces, Image
from service.core.deadline import Deadline


def batch_sizes(max_batch_faces: int) -> list[int]:
    """The few batch sizes that a Triton server warms: powers of two, and the largest batch itself."""
    powers = [1 << exponent for exponent in range(max_batch_faces.bit_length())]
    return [size for size in powers if size < max_batch_faces] + [max_batch_faces]


class Engine(Protocol):
    """The life of a model, wherever it runs."""

    @property
    def circuit(self) -> str | None:
        """The state of its circuit breaker, None if it has none."""

    async def warm_up(self) -> None:
        """Load, and run every shape that will be served until it is as fast as it gets."""

    async def ping(self) -> None:
        """Return if the model can answer; raise `EngineUnavailable` if it cannot. Cheap under load."""

    async def close(self) -> None:
        """Let running calls finish and free what the model holds."""


class Classifier(Engine, Protocol):
    cancellable: bool
    """Whether cancelling a call spares the engine the work; if not, a call that was begun is waited for."""

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        """deadline: of whoever waits longest. Raises `EngineUnavailable` when the engine cannot answer."""


class RemoteDetector(Engine, Protocol):
    """Answers from elsewhere."""

    async def detect(
        self, image: Image, min_face_px: float, threshold: float, deadline: Deadline
    ) -> Detections:
        """Faces at least `min_face_px` high that score at least `threshold`. Raises `EngineUnavailable`."""


@runtime_checkable
class LocalDetector(Engine, Protocol):
    """Works in the thread that asks: several may at a time, and whoever has decoded an image searches it."""

    def find(self, image: Image, min_face_px: float, threshold: float) -> Detections:
        """The same as `RemoteDetector.detect`."""


Detector = RemoteDetector | LocalDetector
