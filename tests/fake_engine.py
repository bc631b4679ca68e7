"""Fake engines that pass the contract suite. A test can make them slow, or choose their error or answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image as Pictures

from service.assembly import Engines
from service.core.arrays import Classification, Detections, Faces, Image
from service.core.deadline import Deadline

TILE_PX = 512
FACE_OF_TILE = np.array([181, 61, 268, 172], np.float32)
LANDMARKS_OF_TILE = np.array([[209, 107], [246, 107], [229, 127], [212, 146], [243, 146]], np.float32)
THUMBNAIL_PX = 32


def _thumbnail(image: Image) -> NDArray[np.float64]:
    side = (THUMBNAIL_PX, THUMBNAIL_PX)
    return np.asarray(Pictures.fromarray(image).convert("L").resize(side), np.float64)


_ASTRONAUT = _thumbnail(skimage.data.astronaut())


def _tile_px(image: Image) -> int:
    """The side in pixels of an astronaut's tile in this image, which the gateway may have scaled down."""
    for tile_px in (TILE_PX, TILE_PX // 2, TILE_PX // 4):
        tile = image[:tile_px, :tile_px]
        if tile.shape[:2] == (tile_px, tile_px) and tile.std() > 5:
            correlation = np.corrcoef(_thumbnail(tile).ravel(), _ASTRONAUT.ravel())[0, 1]
            if correlation > 0.9:
                return tile_px
    return TILE_PX


@dataclass
class FakeDetector:
    """Finds one face in each 512 px tile of the photo, where the astronaut's face is. Skips flat tiles."""

    delay_s: float = 0.0
    error: BaseException | None = None
    answer: Detections | None = None
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
        if self.answer:
            return self.answer
        boxes, landmarks = [], []
        side = _tile_px(image)
        scale = np.float32(side / TILE_PX)
        for top in range(0, image.shape[0] - side + 1, side):
            for left in range(0, image.shape[1] - side + 1, side):
                if image[top : top + side, left : left + side].std() > 5:
                    boxes.append(FACE_OF_TILE * scale + np.array([left, top, left, top], np.float32))
                    landmarks.append(LANDMARKS_OF_TILE * scale + np.array([left, top], np.float32))
        count = len(boxes)
        return Detections(
            np.array(boxes, np.float32).reshape(count, 4),
            np.full(count, 0.999, np.float32),
            np.array(landmarks, np.float32).reshape(count, 5, 2),
        )


@dataclass
class FakeClassifier:
    """Answers happiness for every face, with more confidence for a brighter face. Rows are independent."""

    labels: int = 8
    delay_s: float = 0.0
    error: BaseException | None = None
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
        gates = np.tile(np.array([0.6, 0.4, 0, 0], np.float32), (len(faces), 2, 1))
        occlusion = np.full((len(faces), 1), 0.25, np.float32)
        likeness = np.full((len(faces), 1), 0.75, np.float32)
        return Classification(probabilities.astype(np.float32), gates, occlusion, likeness)


def fake_engines() -> Engines:
    return Engines(FakeClassifier(), FakeDetector())
