"""The protocols that engines implement."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from service.core.arrays import Classification, Detections, Faces, Image
from service.core.deadline import Deadline


def batch_sizes(max_batch_faces: int) -> list[int]:
    """The batch sizes that a Triton server warms up: powers of two, and the largest batch."""
    powers = [1 << exponent for exponent in range(max_batch_faces.bit_length())]
    return [size for size in powers if size < max_batch_faces] + [max_batch_faces]


class Engine(Protocol):
    """The lifecycle of a model, wherever the model runs."""

    @property
    def circuit(self) -> str | None:
        """The state of the circuit breaker; None if the engine has no breaker."""

    async def warm_up(self) -> None:
        """Load the model, and run it until the first request is as fast as later requests."""

    async def ping(self) -> None:
        """Return if the model can answer; raise `EngineUnavailable` if it cannot. Cheap under load."""

    async def close(self) -> None:
        """Let running calls finish, then free the model's resources."""


class Classifier(Engine, Protocol):
    cancellable: bool
    """Whether cancelling a call stops the engine's work. If not, a started call runs to its end."""

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        """faces: uint8 [N,3,S,S]; deadline: the latest of all their requests. Raises `EngineUnavailable`."""


class RemoteDetector(Engine, Protocol):
    """Runs outside this process."""

    async def detect(
        self, image: Image, min_face_px: float, threshold: float, deadline: Deadline
    ) -> Detections:
        """Faces at least `min_face_px` high that score at least `threshold`. Raises `EngineUnavailable`."""


@runtime_checkable
class LocalDetector(Engine, Protocol):
    """Runs in the calling thread, several threads at a time: a thread decodes and searches its image."""

    def find(self, image: Image, min_face_px: float, threshold: float) -> Detections:
        """The same as `RemoteDetector.detect`."""


Detector = RemoteDetector | LocalDetector
