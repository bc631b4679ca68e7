"""Scripted engines that pass the contract suite, and can be told to be slow, to fail or to lie."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from service.app import Engines
from service.arrays import Classification, Detections, Faces, Image
from service.deadline import Deadline

TILE_PX = 512
FACE_OF_TILE = np.array([181, 61, 268, 172], np.float32)
LANDMARKS_OF_TILE = np.array([[209, 107], [246, 107], [229, 127], [212, 146], [243, 146]], np.float32)


@dataclass
class FakeDetector:
    """One face in each 512 px tile of an image that is not flat, where the astronaut's is."""

    delay_s: float = 0.0
    error: Exception | None = None
    circuit: str | None = None

    async def warm_up(self) -> None:
        pass

    async def ping(self) -> None:
        if self.error:
            raise self.error

    async def close(self) -> None:
        pass

    async def detect(
        self, image: Image, min_face_px: float, threshold: float, deadline: Deadline
    ) -> Detections:
        await asyncio.sleep(self.delay_s)
        if self.error:
            raise self.error
        boxes, landmarks = [], []
        for top in range(0, image.shape[0] - TILE_PX + 1, TILE_PX):
            for left in range(0, image.shape[1] - TILE_PX + 1, TILE_PX):
                if image[top : top + TILE_PX, left : left + TILE_PX].std() > 5:
                    boxes.append(FACE_OF_TILE + np.float32([left, top, left, top]))
                    landmarks.append(LANDMARKS_OF_TILE + np.float32([left, top]))
        count = len(boxes)
        return Detections(
            np.array(boxes, np.float32).reshape(count, 4),
            np.full(count, 0.999, np.float32),
            np.array(landmarks, np.float32).reshape(count, 5, 2),
        )


@dataclass
class FakeClassifier:
    """Happiness for every face, surer the brighter it is; each row by itself."""

    labels: int = 8
    delay_s: float = 0.0
    error: Exception | None = None
    answer: Classification | None = None
    gate: asyncio.Event | None = None
    batches: list[int] = field(default_factory=list)
    cancellable: bool = False
    circuit: str | None = None

    async def warm_up(self) -> None:
        pass

    async def ping(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        self.batches.append(len(faces))
        if self.gate:
            await self.gate.wait()
        await asyncio.sleep(self.delay_s)
        if self.error:
            raise self.error
        if self.answer:
            return self.answer
        happiness = 0.6 + 0.4 * faces.mean(axis=(1, 2, 3)) / 255
        probabilities = np.repeat((1 - happiness)[:, None] / (self.labels - 1), self.labels, axis=1)
        probabilities[:, 1] = happiness
        gates = np.tile(np.float32([0.6, 0.4, 0, 0]), (len(faces), 2, 1))
        return Classification(probabilities.astype(np.float32), gates)


def fake_engines() -> Engines:
    return Engines(FakeClassifier(), FakeDetector())
