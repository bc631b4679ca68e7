"""The way of one image: decode -> detect -> align -> classify -> shape, readable top to bottom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.arrays import Classification, Detections, FaceQuality, Faces, Photo
from service.deadline import Deadline
from service.errors import EngineContractError
from service.inference.batcher import Batcher
from service.inference.engine import Detector
from service.manifest import ClassifierManifest, Input
from service.metrics import Metrics
from service.schemas import EmotionQuery, ImageAnswer, ImageSize, Include
from service.shaping import shape_faces
from service.vision.align import align_faces, whole_image
from service.vision.decode import decode
from service.vision.detect import search, select, sharp_enough, shrinkage
from service.vision.quality import SIDE_PX, measure

T = TypeVar("T")

STAGES = ("queue", "decode", "detect", "align", "classify")


@dataclass(slots=True)
class Timings:
    """Seconds that one image, or the images of one batch together, spent in each stage."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] += seconds

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
    kilobytes, and only faces wait in the queue.
    """

    def __init__(
        self,
        detector: Detector,
        batcher: Batcher,
        manifest: ClassifierManifest,
        metrics: Metrics,
        *,
        workers: int,
        pixel_limit: int,
    ) -> None:
        self._detector = detector
        self._batcher = batcher
        self._manifest = manifest
        self._metrics = metrics
        self._pixel_limit = pixel_limit
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="vision")
        self._images = asyncio.Semaphore(workers)

    @property
    def alive(self) -> bool:
        """Whether an image that arrives now will be worked on."""
        return self._batcher.alive

    async def start(self) -> None:
        self._batcher.start()

    async def close(self) -> None:
        """Answer what was admitted, then stop."""
        await self._batcher.close()
        await asyncio.to_thread(self._executor.shutdown)

    async def run(
        self, data: bytes, query: EmotionQuery, deadline: Deadline, timings: Timings
    ) -> ImageAnswer:
        """The faces in an encoded image. Raises the `ServiceError` that says why there is no answer."""
        spent = Timings()
        try:
            answer = await self._run(data, query, deadline, spent)
        finally:
            for stage, seconds in spent.seconds.items():
                timings.add(stage, seconds)
            self._metrics.stages(spent.seconds)
        self._metrics.faces(answer.faces)
        return answer

    async def _run(
        self, data: bytes, query: EmotionQuery, deadline: Deadline, timings: Timings
    ) -> ImageAnswer:
        with self._batcher.coming():
            with timings.stage("queue"):
                async with deadline.within("queue"):
                    await self._images.acquire()
            try:
                framed = await self._frame(data, query, deadline, timings)
            finally:
                self._images.release()
        classification = await self._classify(framed.faces, deadline, timings)
        faces = shape_faces(
            framed.boxes, framed.detections, classification, framed.quality, self._manifest, query
        )
        return ImageAnswer(image=framed.size, faces=faces)

    async def _frame(self, data: bytes, query: EmotionQuery, deadline: Deadline, timings: Timings) -> _Framed:
        if not query.detect:
            photo = await self._decode(data, deadline, timings)
            return await self._align(photo, None, query, deadline, timings)
        photo = await self._decode(
            data, deadline, timings, lambda width, height: shrinkage(width, height, query.min_face_px)
        )
        with timings.stage("detect"):
            async with deadline.within("detect"):
                found = await self._detect(photo, query, deadline)
        # The crop is about as wide as the box is high; fewer pixels than it has would blur it.
        needed_px = SIDE_PX if query.includes(Include.quality) else self._manifest.input.size
        if not sharp_enough(found, photo.scale, needed_px):
            photo = await self._decode(data, deadline, timings)
        return await self._align(photo, found, query, deadline, timings)

    async def _decode(
        self,
        data: bytes,
        deadline: Deadline,
        timings: Timings,
        shrinkage: Callable[[int, int], int] | None = None,
    ) -> Photo:
        with timings.stage("decode"):
            async with deadline.within("decode"):
                return await self._in_thread(
                    lambda: decode(data, pixel_limit=self._pixel_limit, shrinkage=shrinkage)
                )

    async def _detect(self, photo: Photo, query: EmotionQuery, deadline: Deadline) -> Detections:
        plan = await self._in_thread(lambda: search(photo, query.min_face_px))
        found = await self._detector.detect(plan.image, plan.min_face_px, query.min_confidence, deadline)
        count = len(found.boxes)
        if found.boxes.shape != (count, 4) or found.landmarks.shape != (count, 5, 2):
            raise EngineContractError(f"boxes {found.boxes.shape}, landmarks {found.landmarks.shape}")
        return select(found.scaled(plan.scale), photo.width, photo.height, query.max_faces)

    async def _align(
        self,
        photo: Photo,
        found: Detections | None,
        query: EmotionQuery,
        deadline: Deadline,
        timings: Timings,
    ) -> _Framed:
        with timings.stage("align"):
            async with deadline.within("align"):
                return await self._in_thread(lambda: _align(photo, found, self._manifest.input, query))

    async def _classify(self, faces: Faces, deadline: Deadline, timings: Timings) -> Classification:
        if not len(faces):
            return Classification(
                np.empty((0, len(self._manifest.labels)), np.float32), np.empty((0, 2, 4), np.float32)
            )
        started = time.perf_counter()
        async with deadline.within("classify"):
            classification, waited_s = await self._batcher.classify(faces, deadline)
        timings.add("queue", waited_s)
        timings.add("classify", time.perf_counter() - started - waited_s)
        if classification.probabilities.shape[1] != len(self._manifest.labels):
            raise EngineContractError(f"{classification.probabilities.shape[1]} columns of probabilities")
        return classification

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


@dataclass(frozen=True, slots=True)
class _Framed:
    """What is left of an image once its pixels are gone."""

    size: ImageSize
    detections: Detections | None
    boxes: NDArray[np.float32]
    faces: Faces
    quality: list[FaceQuality] | None


def _align(photo: Photo, found: Detections | None, frame: Input, query: EmotionQuery) -> _Framed:
    size = ImageSize(width=photo.width, height=photo.height)
    if found is None:
        boxes = np.array([[0, 0, photo.width, photo.height]], np.float32)
        faces = whole_image(photo.pixels, frame.size)
        quality = measure(photo.pixels, boxes, None) if query.includes(Include.quality) else None
        return _Framed(size, None, boxes, faces, quality)
    seen = found.scaled(1 / photo.scale)
    faces = align_faces(photo.pixels, seen.landmarks, frame.crop, frame.size)
    quality = None
    if query.includes(Include.quality):
        quality = measure(photo.pixels, seen.boxes, seen.landmarks, photo.scale)
    return _Framed(size, found, found.boxes, faces, quality)
