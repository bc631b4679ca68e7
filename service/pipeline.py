"""The way of one image: decode -> detect -> align -> classify -> shape, readable top to bottom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.arrays import Classification, Detections, Drawing, FaceQuality, Faces, Photo
from service.backlog import Backlog
from service.deadline import Deadline
from service.errors import EngineContractError, InvalidRequest
from service.inference.batcher import Batcher
from service.inference.engine import Detector
from service.manifest import ClassifierManifest, Input
from service.metrics import Metrics
from service.schemas import MAX_FACES, EmotionQuery, GroupImage, ImageAnswer, ImageSize, Include
from service.shaping import shape_faces, shape_group
from service.vision import heatmap
from service.vision.align import align_faces, placement, whole_image, whole_placement
from service.vision.decode import decode
from service.vision.detect import SearchPlan, search, select, shrinkage, tolerable_shrinkage, too_narrow
from service.vision.quality import measure
from service.vision.workers import Place, Workers

T = TypeVar("T")

# Every face that is found, in the same way for every caller.
ALL_FACES = EmotionQuery(max_faces=MAX_FACES)

STAGES = ("queue", "decode", "detect", "align", "classify")
# Each costs as much as 64 faces: only of the largest faces.
HEATMAP_FACES = 4


@dataclass(slots=True)
class Timings:
    """Seconds that one image, or the images of one batch together, spent in each stage."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)


class Pipeline:
    """Everything between the bytes of an image and the models of an answer.

    At most `workers` images are decoded at a time: an image is megabytes of pixels, its faces are
    kilobytes, and only faces wait in the queue. One that keeps a thread beyond `decode_budget_s` is given up.

    With `aggregate_only` no answer ever speaks of one face, whoever asks: only of at least so many together.
    """

    def __init__(
        self,
        detector: Detector,
        batcher: Batcher,
        manifest: ClassifierManifest,
        metrics: Metrics,
        *,
        workers: int,
        decode_budget_s: float,
        pixel_limit: int,
        backlog: Backlog,
        aggregate_only: int | None,
    ) -> None:
        self._detector = detector
        self._batcher = batcher
        self._manifest = manifest
        self._metrics = metrics
        self._pixel_limit = pixel_limit
        self._backlog = backlog
        self._aggregate_only = aggregate_only
        self._workers = Workers(workers, budget_s=decode_budget_s, overran=metrics.abandoned_images.inc)

    @property
    def alive(self) -> bool:
        """Whether an image that arrives now will be worked on."""
        return self._batcher.alive

    async def start(self) -> None:
        self._workers.start()
        self._batcher.start()

    async def close(self) -> None:
        """Answer what was admitted, then stop."""
        await self._batcher.close()
        await self._workers.close()

    async def run(
        self, data: bytes, query: EmotionQuery, deadline: Deadline, timings: Timings, *, counted: bool = True
    ) -> ImageAnswer | GroupImage:
        """The faces in an encoded image. Raises the `ServiceError` that says why there is no answer.

        counted: whether the metrics of faces count them; frames of a video show a face again and again.
        """
        if self._aggregate_only is not None:
            if query != EmotionQuery():
                raise InvalidRequest("only groups of all faces are answered here: leave the parameters out")
            query = ALL_FACES
        spent = Timings()
        try:
            with self._backlog.image():
                answer = await self._run(data, query, deadline, spent)
        finally:
            for stage, seconds in spent.seconds.items():
                timings.add(stage, seconds)
            self._metrics.stages(spent.seconds)
        if isinstance(answer, GroupImage):
            self._metrics.group(answer.group)
        elif counted:
            self._metrics.faces(answer.faces)
        return answer

    async def _run(
        self, data: bytes, query: EmotionQuery, deadline: Deadline, timings: Timings
    ) -> ImageAnswer | GroupImage:
        with self._batcher.coming():
            with timings.stage("queue"):
                async with deadline.within("queue"):
                    place = await self._workers.acquire()
            try:
                framed = await self._frame(data, query, deadline, timings, place)
            finally:
                place.release()
        classification = await self._classify(framed.faces, deadline, timings)
        if self._aggregate_only is not None:
            labels = self._manifest.labels
            group = shape_group(classification.probabilities, labels, self._aggregate_only)
            return GroupImage(image=framed.size, group=group)
        drawings: list[Drawing] = []
        if query.includes(Include.heatmap):
            with timings.stage("heatmap"):
                async with deadline.within("heatmap"):
                    drawings = await self._heatmaps(framed, classification, deadline)
        faces = shape_faces(
            framed.boxes, framed.detections, classification, framed.quality, drawings, self._manifest, query
        )
        return ImageAnswer(image=framed.size, faces=faces)

    async def _frame(
        self, data: bytes, query: EmotionQuery, deadline: Deadline, timings: Timings, place: Place
    ) -> _Framed:
        if not query.detect:
            photo = await self._decode(lambda: self._photo(data), deadline, timings, place)
            return await self._align(photo, None, deadline, timings, place)

        # In one go, so that threads change once less.
        def photo_and_plan() -> tuple[Photo, SearchPlan]:
            photo = self._photo(data, lambda width, height: shrinkage(width, height, query.min_face_px))
            return photo, search(photo, query.min_face_px)

        photo, plan = await self._decode(photo_and_plan, deadline, timings, place)
        with timings.stage("detect"):
            async with deadline.within("detect"):
                found = await self._detect(photo, plan, query, deadline)
        # The crop is about as wide as the box is high; fewer pixels than it has would blur it.
        tolerable = tolerable_shrinkage(found, self._manifest.input.size)
        if photo.scale > tolerable:
            photo = await self._decode(
                lambda: self._photo(data, lambda *_: tolerable), deadline, timings, place
            )
        return await self._align(photo, found, deadline, timings, place)

    def _photo(self, data: bytes, shrinkage: Callable[[int, int], int] | None = None) -> Photo:
        return decode(data, pixel_limit=self._pixel_limit, shrinkage=shrinkage)

    async def _decode(
        self, function: Callable[[], T], deadline: Deadline, timings: Timings, place: Place
    ) -> T:
        with timings.stage("decode"):
            async with deadline.within("decode"):
                return await place.run(function)

    async def _detect(
        self, photo: Photo, plan: SearchPlan, query: EmotionQuery, deadline: Deadline
    ) -> Detections:
        if too_narrow(photo.width, photo.height, query.min_face_px):
            return Detections.none()
        found = await self._detector.detect(plan.image, plan.min_face_px, query.min_confidence, deadline)
        count = len(found.boxes)
        if (found.boxes.shape, found.scores.shape, found.landmarks.shape) != (
            (count, 4),
            (count,),
            (count, 5, 2),
        ):
            raise EngineContractError(
                f"boxes {found.boxes.shape}, scores {found.scores.shape}, landmarks {found.landmarks.shape}"
            )
        if not all(np.isfinite(part).all() for part in (found.boxes, found.scores, found.landmarks)):
            raise EngineContractError("boxes, scores or landmarks are not finite")
        return select(found.scaled(plan.scale), photo.width, photo.height, query.max_faces)

    async def _align(
        self,
        photo: Photo,
        found: Detections | None,
        deadline: Deadline,
        timings: Timings,
        place: Place,
    ) -> _Framed:
        with timings.stage("align"):
            async with deadline.within("align"):
                return await place.run(lambda: _align(photo, found, self._manifest.input))

    async def _classify(self, faces: Faces, deadline: Deadline, timings: Timings) -> Classification:
        if not len(faces):
            shapes = (0, len(self._manifest.labels)), (0, 2, 4), (0, 1)
            return Classification(*(np.empty(shape, np.float32) for shape in shapes))
        started = time.perf_counter()
        async with deadline.within("classify"):
            classification, waited_s = await self._batcher.classify(faces, deadline)
        timings.add("queue", waited_s)
        timings.add("classify", time.perf_counter() - started - waited_s)
        if classification.probabilities.shape[1] != len(self._manifest.labels):
            raise EngineContractError(f"{classification.probabilities.shape[1]} columns of probabilities")
        return classification

    async def _heatmaps(
        self, framed: _Framed, classification: Classification, deadline: Deadline
    ) -> list[Drawing]:
        """Of the largest faces, one after another: other requests' faces get their turn between them."""
        left = []
        for face, row in zip(framed.faces[:HEATMAP_FACES], classification.probabilities, strict=False):
            covered, _ = await self._batcher.classify(heatmap.covered(face), deadline)
            left.append((float(row.max()), covered.probabilities[:, row.argmax()]))

        def draw() -> list[Drawing]:
            placements = framed.placements(self._manifest.input)
            size = self._manifest.input.size
            return [heatmap.draw(*told, at, size) for told, at in zip(left, placements, strict=False)]

        return await asyncio.to_thread(draw)


@dataclass(frozen=True, slots=True)
class _Framed:
    """What is left of an image once its pixels are gone."""

    size: ImageSize
    detections: Detections | None
    boxes: NDArray[np.float32]
    faces: Faces
    quality: list[FaceQuality]

    def placements(self, frame: Input) -> list[tuple[complex, complex]]:
        """Where each face was cut out of the image, in its pixels."""
        whole = whole_placement(self.size.width, self.size.height, frame.size)
        if self.detections is None:
            return [whole]
        landmarks = self.detections.landmarks
        return [placement(points, frame.crop, frame.size) or whole for points in landmarks]


def _align(photo: Photo, found: Detections | None, frame: Input) -> _Framed:
    size = ImageSize(width=photo.width, height=photo.height)
    if found is None:
        boxes = np.array([[0, 0, photo.width, photo.height]], np.float32)
        faces = whole_image(photo.pixels, frame.size)
        return _Framed(size, None, boxes, faces, measure(faces, boxes, None))
    faces = align_faces(photo.pixels, found.scaled(1 / photo.scale).landmarks, frame.crop, frame.size)
    return _Framed(size, found, found.boxes, faces, measure(faces, found.boxes, found.landmarks))
