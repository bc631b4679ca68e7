"""How often an image is decoded, and which of its pixels the classifier sees."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from service import pipeline as module
from service.arrays import Classification, Detections, Faces, Photo
from service.arrays import Image as Pixels
from service.deadline import NEVER, Deadline
from service.inference.batcher import Batcher, BatcherEvents, BatcherLimits
from service.manifest import ClassifierManifest, read_manifest
from service.metrics import Metrics
from service.pipeline import Pipeline, Timings
from service.schemas import EmotionQuery
from service.settings import Settings
from tests.conftest import encoded
from tests.fake_engine import FakeClassifier, FakeDetector

# A box of 100 px at the middle of the image, in fractions of its sides.
SIDE = 1024
BOX = np.array([[462, 462, 562, 562]], np.float32) / SIDE
LANDMARKS = np.array([[[490, 495], [534, 495], [512, 515], [495, 535], [529, 535]]], np.float32) / SIDE


@dataclass
class OneFace(FakeDetector):
    """Finds a face in the middle of whatever image it is shown."""

    shown: list[tuple[int, ...]] = field(default_factory=list)

    async def detect(
        self, image: Pixels, min_face_px: float, threshold: float, deadline: Deadline
    ) -> Detections:
        self.shown.append(image.shape)
        side = image.shape[0]
        return Detections(BOX * side, np.ones(1, np.float32), LANDMARKS * side)


@dataclass
class Seeing(FakeClassifier):
    faces: list[Faces] = field(default_factory=list)

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        self.faces.append(faces)
        return await super().classify(faces, deadline)


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Scales at which images were decoded, in turn."""
    decoded: list[int] = []

    def decode(*args: object, **options: object) -> Photo:
        photo = original(*args, **options)  # type: ignore[arg-type]
        decoded.append(photo.scale)
        return photo

    original = module.decode
    monkeypatch.setattr(module, "decode", decode)
    return decoded


async def run(data: bytes, query: EmotionQuery) -> tuple[OneFace, Seeing]:
    settings = Settings()
    manifest = read_manifest(settings.model_repository, settings.classifier)
    assert isinstance(manifest, ClassifierManifest)
    detector, classifier, metrics = OneFace(), Seeing(), Metrics()
    events = BatcherEvents(metrics.batch_size.observe, metrics.queue_depth.set)
    batcher = Batcher(classifier, BatcherLimits(32, 256, 0.002, calls_in_flight=1), events)
    pipeline = Pipeline(detector, batcher, manifest, metrics, workers=1, pixel_limit=50_000_000)
    await pipeline.start()
    try:
        answer = await pipeline.run(data, query, NEVER, Timings())
    finally:
        await pipeline.close()
    (face,) = answer.faces
    assert face.box.x == pytest.approx(462, abs=1)
    assert face.box.width == pytest.approx(100, abs=1)
    assert (answer.image.width, answer.image.height) == (SIDE, SIDE)
    return detector, classifier


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    """Stripes of 2 px: decoded four times smaller they are grey."""
    stripes = np.zeros((SIDE, SIDE, 3), np.uint8)
    stripes[:, np.arange(SIDE) // 2 % 2 == 0] = 255
    return encoded(Image.fromarray(stripes), quality=95, subsampling=0)


async def test_small_faces_are_cut_from_all_pixels(jpeg: bytes, scales: list[int]) -> None:
    detector, classifier = await run(jpeg, EmotionQuery(min_face_px=96))
    assert scales == [4, 1]
    assert detector.shown == [(256, 256, 3)]
    assert classifier.faces[0].std() > 40


async def test_large_faces_are_cut_from_fewer_pixels(jpeg: bytes, scales: list[int]) -> None:
    """Half of the pixels show 50 of the face's 100: enough for the classifier, not for `quality`."""
    await run(jpeg, EmotionQuery(min_face_px=48))
    assert scales == [2]
    await run(jpeg, EmotionQuery(min_face_px=48, include="quality"))
    assert scales == [2, 2, 1]


async def test_ordinary_images_are_decoded_once(jpeg: bytes, scales: list[int]) -> None:
    detector, _ = await run(jpeg, EmotionQuery())
    assert scales == [1]
    assert detector.shown == [(SIDE, SIDE, 3)]
