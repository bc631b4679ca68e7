"""How often an image is decoded, and which of its pixels the classifier sees."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.core.arrays import Classification, Detections, Faces, Photo
from service.core.arrays import Image as Pixels
from service.core.backlog import Backlog
from service.core.deadline import NEVER, Deadline
from service.core.errors import DeadlineExceeded, HostBusy, ImageTooComplex, ImageTooLarge, ServiceError
from service.core.manifest import EMOTIONS, ClassifierManifest, read_manifest
from service.core.query import Query
from service.core.seen import Seen
from service.core.timings import Timings
from service.inference.batcher import Batcher, BatcherEvents, BatcherLimits
from service.pipeline import crops as module
from service.pipeline.groups import GroupPipeline
from service.pipeline.pipeline import Pipeline
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.vision import workers
from service.vision.decode import decode as decode_image
from tests.conftest import encoded
from tests.fake_engine import FakeClassifier, FakeDetector

# A box of 100 px at the middle of the image, in fractions of its sides.
SIDE = 1024
BOX = np.array([[462, 462, 562, 562]], np.float32) / SIDE
LANDMARKS = np.array([[[490, 495], [534, 495], [512, 515], [495, 535], [529, 535]]], np.float32) / SIDE
# Six boxes of decreasing size, all within an image of 64 px.
FACES = np.array([[0, 0, 60 - 5 * n, 60 - 5 * n] for n in range(6)], np.float32)


@dataclass
class OneFace(FakeDetector):
    """Finds one face in the middle of every image, and records the shapes of the images."""

    shapes: list[tuple[int, ...]] = field(default_factory=list)

    async def detect(
        self, image: Pixels, min_face_px: float, threshold: float, deadline: Deadline
    ) -> Detections:
        self.shapes.append(image.shape)
        side = image.shape[0]
        return Detections(BOX * side, np.ones(1, np.float32), LANDMARKS * side)


@dataclass
class UprightFace(FakeDetector):
    """Finds the white corner of an image as a face, and is only sure of it in the upper left corner."""

    searches: int = 0

    async def detect(
        self, image: Pixels, min_face_px: float, threshold: float, deadline: Deadline
    ) -> Detections:
        self.searches += 1
        rows, columns = (np.unique(place) for place in np.nonzero(image[:, :, 0] > 200))
        if not len(rows):
            return Detections.none()
        corner = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
        score = 0.99 if corner[:2].max() == 0 else 0.95
        return Detections(
            corner[None], np.array([score], np.float32), np.repeat(corner[None, None, :2], 5, 1)
        )


@dataclass
class RecordingClassifier(FakeClassifier):
    faces: list[Faces] = field(default_factory=list)

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        self.faces.append(faces)
        return await super().classify(faces, deadline)


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The scales at which images are decoded, in their order."""
    decoded: list[int] = []

    def decode(*args: object, **options: object) -> Photo:
        photo = decode_image(*args, **options)  # type: ignore[arg-type]
        decoded.append(photo.scale)
        return photo

    monkeypatch.setattr(module, "decode", decode)
    return decoded


@asynccontextmanager
async def started(
    detector: FakeDetector | OneFaceInThread,
    classifier: FakeClassifier,
    metrics: Metrics,
    workers: int = 1,
    decode_budget_s: float = 60,
) -> AsyncIterator[Pipeline]:
    settings = Settings()
    manifest = read_manifest(settings.model_repository, settings.classifier)
    assert isinstance(manifest, ClassifierManifest)
    events = BatcherEvents(metrics.batch_size.observe, metrics.queue_depth.set)
    batcher = Batcher(classifier, BatcherLimits(32, 256, 0.002, calls_in_flight=1), events)
    pipeline = Pipeline(
        detector,
        batcher,
        manifest,
        metrics,
        workers=workers,
        decode_budget_s=decode_budget_s,
        pixel_limit=50_000_000,
        backlog=Backlog(workers, 60),
    )
    await pipeline.start()
    try:
        yield pipeline
    finally:
        await pipeline.close()


async def seen(image: bytes | Pixels, query: Query, detector: FakeDetector | None = None) -> Seen:
    async with started(detector or OneFace(), FakeClassifier(), Metrics()) as pipeline:
        return await pipeline.run(image, query, NEVER, Timings())


async def run(image: bytes | Pixels, query: Query) -> tuple[OneFace, RecordingClassifier]:
    detector, classifier = OneFace(), RecordingClassifier()
    async with started(detector, classifier, Metrics()) as pipeline:
        found = await pipeline.run(image, query, NEVER, Timings())
    np.testing.assert_allclose(found.boxes, BOX * SIDE, atol=1)
    assert (found.width, found.height) == (SIDE, SIDE)
    return detector, classifier


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    """Stripes of 2 px. They are grey when the image is decoded at a quarter of its size."""
    stripes = np.zeros((SIDE, SIDE, 3), np.uint8)
    stripes[:, np.arange(SIDE) // 2 % 2 == 0] = 255
    return encoded(Image.fromarray(stripes), quality=95, subsampling=0)


async def test_small_faces_are_cropped_from_enough_pixels(jpeg: bytes, scales: list[int]) -> None:
    """At half the resolution the face has 50 of its 100 px, which is enough for the classifier."""
    detector, classifier = await run(jpeg, Query(min_face_px=96))
    assert scales == [4, 2]
    assert detector.shapes == [(256, 256, 3)]
    assert classifier.faces[0].std() > 40


async def test_an_image_too_narrow_for_a_face_is_not_sent_to_the_detector() -> None:
    detector = OneFace()
    async with started(detector, FakeClassifier(), Metrics()) as pipeline:
        strip = encoded(Image.new("L", (8, 5000)), "PNG")
        found = await pipeline.run(strip, Query(), NEVER, Timings())
    assert (found.face_count, found.faces_found, detector.shapes) == (0, 0, [])


async def test_heatmaps_change_nothing_else(jpeg: bytes, scales: list[int]) -> None:
    plain = await seen(jpeg, Query(min_face_px=96))
    drawn = await seen(jpeg, Query(min_face_px=96, heatmaps=True))
    # Heatmaps must not change the scale either: the classifier would get another crop.
    assert scales == [4, 2, 4, 2]
    np.testing.assert_array_equal(plain.probabilities, drawn.probabilities)
    np.testing.assert_array_equal(plain.boxes, drawn.boxes)
    assert (plain.quality, plain.reasons) == (drawn.quality, drawn.reasons)
    assert (len(plain.drawings), len(drawn.drawings)) == (0, 1)


@dataclass
class SixFaces(FakeDetector):
    """Finds six faces in a search for small faces, and no large ones."""

    async def detect(
        self, image: Pixels, min_face_px: float, threshold: float, deadline: Deadline
    ) -> Detections:
        if image.shape[0] < SIDE // 4:
            return Detections.none()
        return Detections(FACES, np.ones(6, np.float32), np.repeat(LANDMARKS, 6, axis=0))


@pytest.mark.parametrize(("max_faces", "kept"), [(2, 2), (6, 6), (128, 6)])
async def test_faces_beyond_max_faces_are_counted(jpeg: bytes, max_faces: int, kept: int) -> None:
    found = await seen(jpeg, Query(max_faces=max_faces), SixFaces())
    assert (found.face_count, found.faces_found) == (kept, 6)
    np.testing.assert_array_equal(found.boxes, 2 * FACES[:kept])  # detected at half the resolution
    assert len(found.quality) == len(found.probabilities) == len(found.reasons) == kept


async def test_without_detection_the_whole_image_is_one_face(jpeg: bytes) -> None:
    found = await seen(jpeg, Query(detect=False))
    assert (found.face_count, found.faces_found) == (1, 1)
    assert found.scores is None
    assert found.landmarks is None


@pytest.mark.parametrize("query", [Query(), Query(detect=False), Query(min_face_px=96)])
async def test_pixels_get_the_answer_of_their_file(
    astronaut: NDArray[np.uint8], scales: list[int], query: Query
) -> None:
    by_file = await seen(encoded(astronaut, "PNG"), query, FakeDetector())
    assert scales == [1]
    by_pixels = await seen(astronaut, query, FakeDetector())
    assert scales == [1], "pixels are not decoded"
    np.testing.assert_array_equal(by_file.boxes, by_pixels.boxes)
    np.testing.assert_array_equal(by_file.probabilities, by_pixels.probabilities)
    assert by_file.quality == by_pixels.quality


async def test_an_array_with_too_many_pixels_is_refused() -> None:
    with pytest.raises(ImageTooLarge, match="8000 x 7000 pixels"):
        await seen(np.broadcast_to(np.uint8(0), (7000, 8000, 3)), Query())


async def test_heatmaps_are_made_of_the_largest_faces_only(jpeg: bytes) -> None:
    detector = SixFaces()
    classifier, timings = RecordingClassifier(), Timings()
    async with started(detector, classifier, Metrics()) as pipeline:
        found = await pipeline.run(jpeg, Query(heatmaps=True), NEVER, timings)
    assert (found.face_count, len(found.drawings)) == (6, 4)
    assert sum(len(faces) for faces in classifier.faces) >= 6 + 4 * 64
    assert timings.seconds["heatmap"] > 0


async def test_heatmaps_are_bound_by_the_deadline(jpeg: bytes) -> None:
    @dataclass
    class SlowAfterTheFirstBatch(FakeClassifier):
        async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
            self.delay_s = 30.0 if self.batches else 0.0
            return await super().classify(faces, deadline)

    async with started(OneFace(), SlowAfterTheFirstBatch(cancellable=True), Metrics()) as pipeline:
        with pytest.raises(DeadlineExceeded, match="heatmap"):
            await pipeline.run(jpeg, Query(heatmaps=True), Deadline.after(1.5), Timings())


@pytest.mark.parametrize("min_face_px", [32, 48])
async def test_large_faces_are_cropped_from_fewer_pixels(
    min_face_px: float, jpeg: bytes, scales: list[int]
) -> None:
    await run(jpeg, Query(min_face_px=min_face_px))
    assert scales == [2]


async def test_images_that_are_detected_at_full_size_are_decoded_once(jpeg: bytes, scales: list[int]) -> None:
    detector, _ = await run(jpeg, Query(min_face_px=40))
    assert scales == [1]
    assert detector.shapes == [(SIDE, SIDE, 3), (SIDE // 8, SIDE // 8, 3)], (
        "and searched again for large faces"
    )


async def test_the_result_of_a_group_pipeline_has_no_single_faces(astronaut: NDArray[np.uint8]) -> None:
    """A route of group mode gets no single faces, so it cannot answer for them by mistake."""
    async with started(FakeDetector(), FakeClassifier(), Metrics()) as faces:
        groups = GroupPipeline(faces, min_faces=5)
        few = await groups.run(encoded(np.tile(astronaut, (2, 2, 1))), NEVER, Timings())
        many = await groups.run(encoded(np.tile(astronaut, (6, 6, 1))), NEVER, Timings())
    assert (few.face_count, few.probabilities) == (0, None)
    assert many.face_count == 36, "a group has more faces than a caller gets by default"
    assert many.probabilities is not None
    assert many.probabilities.shape == (8,)


@dataclass
class SignallingClassifier(FakeClassifier):
    """Sets `called` at each call, and answers after `gate` is set."""

    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        self.called.set()
        return await super().classify(faces, deadline)


class OneFaceInThread:
    """A detector that runs in the thread of its caller, and finds the face of `OneFace`."""

    circuit = None

    async def warm_up(self) -> None: ...
    async def ping(self) -> None: ...
    async def close(self) -> None: ...

    def find(self, image: Pixels, min_face_px: float, threshold: float) -> Detections:
        side = image.shape[0]
        return Detections(BOX * side, np.ones(1, np.float32), LANDMARKS * side)


@pytest.mark.parametrize("detector", [OneFace(), OneFaceInThread()], ids=["elsewhere", "here"])
async def test_pixels_are_freed_while_faces_wait_for_the_classifier(
    monkeypatch: pytest.MonkeyPatch, jpeg: bytes, detector: OneFace | OneFaceInThread
) -> None:
    pixels: list[weakref.ref[NDArray[np.uint8]]] = []

    def decode(*args: object, **options: object) -> Photo:
        photo = decode_image(*args, **options)  # type: ignore[arg-type]
        pixels.append(weakref.ref(photo.pixels))
        return photo

    monkeypatch.setattr(module, "decode", decode)
    gate = asyncio.Event()
    classifier = SignallingClassifier(gate=gate)
    async with started(detector, classifier, Metrics()) as pipeline:
        running = asyncio.create_task(pipeline.run(jpeg, Query(), NEVER, Timings()))
        await classifier.called.wait()
        await asyncio.sleep(0.05)  # until the thread has released the pixels
        alive = [reference() is not None for reference in pixels]
        gate.set()
        await running
    assert alive
    assert not any(alive)


@pytest.mark.parametrize(
    ("image", "error"), [(b"\0\0\0\x10ftypheic", ImageTooComplex), (b"\xff\xd8\xff", HostBusy)]
)
async def test_helper_threads_of_a_decoder_count_only_for_its_formats(
    monkeypatch: pytest.MonkeyPatch, image: bytes, error: type[ServiceError]
) -> None:
    released = threading.Event()

    def spin() -> None:
        while not released.is_set():
            pass

    def decode(*args: object, **options: object) -> Photo:
        helper = threading.Thread(target=spin)
        helper.start()
        helper.join()
        return decode_image(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "decode", decode)
    # The machine that runs the tests may be busy.
    monkeypatch.setattr(workers, "MIN_CPU_SHARE", 0.05)
    async with started(OneFace(), FakeClassifier(), Metrics(), decode_budget_s=0.2) as pipeline:
        try:
            with pytest.raises(error):
                await pipeline.run(image, Query(), NEVER, Timings())
        finally:
            released.set()


def photo_with_corner(*, width: int = 640, height: int = 320) -> Pixels:
    photo = np.zeros((height, width, 3), np.uint8)
    photo[:80, :100] = 255
    return photo


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("width", [640, 2000])
async def test_a_turned_photo_is_searched_until_a_sure_face_is_found(quarters: int, width: int) -> None:
    photo = np.ascontiguousarray(np.rot90(photo_with_corner(width=width, height=width // 2), quarters))
    found = await seen(photo, Query(), UprightFace())
    height, width = photo.shape[:2]
    rows, columns = (np.unique(place) for place in np.nonzero(photo[:, :, 0]))
    assert (found.width, found.height) == (width, height)
    np.testing.assert_allclose(
        found.boxes, [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], atol=width / 100
    )
    assert found.scores is not None
    assert found.scores[0] == np.float32(0.99)


@pytest.mark.parametrize(
    ("quarters", "turned", "searches"),
    [(0, True, 1), (1, True, 3), (3, True, 2), (2, True, 4), (2, False, 2)],
)
async def test_a_sure_face_ends_the_search(quarters: int, turned: bool, searches: int) -> None:
    """Without turned searches, an unsure face is still searched once more, to level it."""
    detector = UprightFace()
    await seen(np.rot90(photo_with_corner(), quarters).copy(), Query(turned=turned), detector)
    assert detector.searches == searches


class PatternInATurn(FakeDetector):
    """Finds an unsure face in the middle of upright images only."""

    async def detect(
        self, image: Pixels, min_face_px: float, threshold: float, deadline: Deadline
    ) -> Detections:
        height, width = image.shape[:2]
        if width >= height:
            return Detections.none()
        box = np.array([[width / 2 - 30, height / 2 - 30, width / 2 + 30, height / 2 + 30]], np.float32)
        return Detections(box, np.array([0.96], np.float32), np.repeat(box[:, None, :2], 5, 1))


async def test_an_unsure_face_of_a_turned_photo_does_not_count() -> None:
    found = await seen(np.zeros((320, 640, 3), np.uint8), Query(), PatternInATurn())
    assert found.face_count == 0


async def test_a_photo_without_a_face_is_searched_once_for_each_turn() -> None:
    detector = UprightFace()
    found = await seen(np.zeros((320, 640, 3), np.uint8), Query(), detector)
    assert (found.face_count, detector.searches) == (0, 4)


async def test_probabilities_have_the_prior_of_the_query_or_of_the_service(jpeg: bytes) -> None:
    """Agreement is always that of the training's shares."""
    detector, classifier = OneFace(), FakeClassifier()
    async with started(detector, classifier, Metrics()) as pipeline:
        plain = await pipeline.run(jpeg, Query(), NEVER, Timings())
        rare = await pipeline.run(jpeg, Query(prior="happiness=0.001,fear=0.999"), NEVER, Timings())
        pipeline.prior = "happiness=0.001,fear=0.999"
        by_default = await pipeline.run(jpeg, Query(), NEVER, Timings())
        training = await pipeline.run(jpeg, Query(prior="training"), NEVER, Timings())
    assert plain.emotions == training.emotions == ["happiness"]
    assert rare.emotions == by_default.emotions == ["fear"]
    np.testing.assert_array_equal(plain.probabilities, training.probabilities)
    np.testing.assert_allclose(rare.probabilities.sum(axis=1), 1, rtol=1e-6)
    fear = EMOTIONS.index("fear")
    assert rare.agreement[0] == pytest.approx(plain.probabilities[0, fear])
