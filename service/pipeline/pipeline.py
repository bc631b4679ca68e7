"""The way of one image: decode -> detect -> align -> classify -> shape, readable top to bottom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from service.api.schemas import MAX_FACES, EmotionQuery, GroupImage, ImageAnswer, Include
from service.core.arrays import Classification, Detections, Drawing, Faces
from service.core.backlog import Backlog
from service.core.deadline import Deadline
from service.core.errors import EngineContractError, InvalidRequest
from service.core.manifest import ClassifierManifest
from service.core.timings import Timings
from service.inference.batcher import Batcher
from service.inference.engine import Detector, LocalDetector
from service.pipeline.crops import Framed, Framing
from service.pipeline.shaping import shape_faces, shape_group
from service.telemetry.metrics import Metrics
from service.vision import heatmap
from service.vision.workers import Place, Workers

T = TypeVar("T")

# Every face that is found, in the same way for every caller.
ALL_FACES = EmotionQuery(max_faces=MAX_FACES)

NOTHING = Detections.none()
# Each costs as much as 64 faces: only of the largest faces.
HEATMAP_FACES = 4


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
        # Told apart once: to ask whether something fits a protocol takes long.
        self._local = detector if isinstance(detector, LocalDetector) else None
        self._remote = None if isinstance(detector, LocalDetector) else detector
        self._batcher = batcher
        self._manifest = manifest
        self._metrics = metrics
        self._pixel_limit = pixel_limit
        self._backlog = backlog
        self._aggregate_only = aggregate_only
        self._workers = Workers(
            workers,
            budget_s=decode_budget_s,
            overran=metrics.abandoned_images.inc,
            # Where an image keeps its thread to the end, one that waits for it is no more than its bytes.
            ahead=workers if self._local is not None else 0,
        )

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
                async with deadline.within(lambda: spent.current):
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
                place = await self._workers.acquire()
            try:
                # No name for it here: its pixels must be gone when faces wait for the classifier.
                framed = await self._frame(
                    Framing(data, query, self._manifest.input, self._pixel_limit, timings),
                    query,
                    deadline,
                    timings,
                    place,
                )
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
                drawings = await self._heatmaps(framed, classification, deadline)
        faces = shape_faces(
            framed.boxes, framed.detections, classification, framed.quality, drawings, self._manifest, query
        )
        return ImageAnswer(image=framed.size, faces=faces)

    async def _frame(
        self, framing: Framing, query: EmotionQuery, deadline: Deadline, timings: Timings, place: Place
    ) -> Framed:
        if not query.detect:
            return await _timed(place, framing.whole, timings)
        if (local := self._local) is not None:
            in_one_go = partial(_search_here, framing, local, query, place, timings)
            return await _timed(place, in_one_go, timings)
        assert self._remote is not None
        plan = await _timed(place, framing.plan, timings)
        found = NOTHING
        if plan is not None:
            with timings.stage("detect"):
                found = await self._remote.detect(
                    plan.image, plan.min_face_px, query.min_detection_confidence, deadline
                )
        return await _timed(place, lambda: framing.frame(plan, found), timings)

    async def _classify(self, faces: Faces, deadline: Deadline, timings: Timings) -> Classification:
        if not len(faces):
            shapes = (0, len(self._manifest.labels)), (0, 2, 4), (0, 1)
            return Classification(*(np.empty(shape, np.float32) for shape in shapes))
        timings.current = "classify"
        started = time.perf_counter()
        classification, waited_s = await self._batcher.classify(faces, deadline)
        timings.add("queue", waited_s)
        timings.add("classify", time.perf_counter() - started - waited_s)
        if classification.probabilities.shape[1] != len(self._manifest.labels):
            raise EngineContractError(f"{classification.probabilities.shape[1]} columns of probabilities")
        return classification

    async def _heatmaps(
        self, framed: Framed, classification: Classification, deadline: Deadline
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


def _search_here(
    framing: Framing,
    detector: LocalDetector,
    query: EmotionQuery,
    place: Place,
    timings: Timings,
) -> Framed:
    """All steps in one thread. Raises `GivenUp` between them when nobody waits for the image any more."""
    plan = framing.plan()
    place.check()
    found = NOTHING
    if plan is not None:
        with timings.stage("detect"):
            found = detector.find(plan.image, plan.min_face_px, query.min_detection_confidence)
    place.check()
    return framing.frame(plan, found)


async def _timed(place: Place, function: Callable[[], T], timings: Timings) -> T:
    """What it returns; what it does not say of its time was spent on the way to the thread and back."""
    started, before = time.perf_counter(), timings.total()
    result = await place.run(function)
    waited = time.perf_counter() - started - (timings.total() - before)
    timings.add("queue", waited)
    return result
