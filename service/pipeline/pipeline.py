"""The stages of one image: decode -> detect -> crop -> classify."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.arrays import Classification, Detections, Drawing, Faces, Image
from service.core.backlog import Backlog
from service.core.deadline import Deadline
from service.core.errors import EngineContractError
from service.core.manifest import ClassifierManifest
from service.core.priors import TRAINING, prior_factors, with_factors
from service.core.query import Query
from service.core.seen import Seen
from service.core.timings import Timings
from service.inference.batcher import Batcher
from service.inference.engine import Detector, LocalDetector
from service.pipeline.crops import Cropper, Crops
from service.pipeline.verdict import reasons
from service.telemetry.metrics import Metrics
from service.vision import heatmap
from service.vision.decode import has_own_threads
from service.vision.detect import SearchPlan
from service.vision.workers import Slot, Workers

T = TypeVar("T")

# A heatmap costs as much as 64 faces, so only the largest faces get one.
HEATMAP_FACES = 4


class Pipeline:
    """From an image to what was seen in it.

    At most `workers` images are decoded at a time: an image is megabytes of pixels, its faces are
    kilobytes. Only faces wait in the queue. An image that keeps a thread beyond `decode_budget_s` gets an
    error.
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
        prior: str = TRAINING,
        reports_stages: bool = True,
    ) -> None:
        """prior: in its standard form, for queries without one."""
        # Once, because `isinstance` with a protocol is slow.
        self._local = detector if isinstance(detector, LocalDetector) else None
        self._remote = None if isinstance(detector, LocalDetector) else detector
        self._batcher = batcher
        self._manifest = manifest
        self.prior = prior
        self._metrics = metrics
        self._pixel_limit = pixel_limit
        self._backlog = backlog
        self._reports_stages = reports_stages
        self._workers = Workers(
            workers,
            budget_s=decode_budget_s,
            overran=metrics.abandoned_images.inc,
            # With a local detector an image keeps its thread, so a waiting image is only its bytes.
            ahead=workers if self._local is not None else 0,
        )

    async def start(self) -> None:
        self._workers.start()
        self._batcher.start()

    async def close(self) -> None:
        """Answer what was admitted, then stop."""
        await self._batcher.close()
        await self._workers.close()

    async def run(self, image: bytes | Image, query: Query, deadline: Deadline, timings: Timings) -> Seen:
        """The faces in an encoded image, or in pixels, uint8 [H,W,3] RGB.

        Raises a `ServiceError` with the reason if there is no answer.
        """
        spent = Timings()
        try:
            with self._backlog.image():
                async with deadline.within(lambda: spent.current if self._reports_stages else "the search"):
                    return await self._run(image, query, deadline, spent)
        finally:
            if not self._reports_stages:
                spent = Timings()
            for stage, seconds in spent.seconds.items():
                timings.add(stage, seconds)
            self._metrics.stages(spent.seconds)

    async def _run(self, image: bytes | Image, query: Query, deadline: Deadline, timings: Timings) -> Seen:
        with self._batcher.image_in_detection():
            with timings.stage("queue"):
                multithreaded = isinstance(image, bytes) and has_own_threads(image)
                slot = await self._workers.acquire(multithreaded=multithreaded)
            try:
                # No variable keeps the cropper: its pixels must be freed before faces wait in the queue.
                crops = await self._crop(
                    Cropper(image, query, self._manifest.input, self._pixel_limit, timings),
                    query,
                    deadline,
                    timings,
                    slot,
                )
            finally:
                slot.release()
        classification = await self._classify(crops.faces, deadline, timings)
        factors = prior_factors(query.prior or self.prior, self._manifest.prior, self._manifest.labels)
        probabilities = with_factors(classification.probabilities, factors)
        drawings: list[Drawing] = []
        if query.heatmaps:
            with timings.stage("heatmap"):
                drawings = await self._heatmaps(crops, probabilities, factors, deadline)
        return self._seen(crops, classification, probabilities, drawings)

    def _seen(
        self,
        crops: Crops,
        classification: Classification,
        probabilities: NDArray[np.float32],
        drawings: list[Drawing],
    ) -> Seen:
        quality = [
            replace(measured, occlusion=occlusion, face_likeness=likeness)
            for measured, (occlusion,), (likeness,) in zip(
                crops.quality,
                classification.occlusion.tolist(),
                classification.face_likeness.tolist(),
                strict=True,
            )
        ]
        confidences = [max(row) for row in probabilities.tolist()]
        answered = probabilities.argmax(axis=1)[:, None]
        rule, found = self._manifest.verdict, crops.detections
        return Seen(
            width=crops.width,
            height=crops.height,
            faces_found=crops.faces_found,
            boxes=crops.boxes,
            scores=None if found is None else found.scores,
            landmarks=None if found is None else found.landmarks,
            labels=self._manifest.labels,
            probabilities=probabilities,
            agreement=np.take_along_axis(classification.probabilities, answered, axis=1)[:, 0],
            gates=classification.gates,
            quality=quality,
            reasons=[reasons(*face, rule) for face in zip(confidences, quality, strict=True)],
            drawings=drawings,
        )

    async def _crop(
        self, cropper: Cropper, query: Query, deadline: Deadline, timings: Timings, slot: Slot
    ) -> Crops:
        if not query.detect:
            return await _timed(slot, cropper.whole, timings)
        if (local := self._local) is not None:
            in_one_go = partial(_search_here, cropper, local, query, slot, timings)
            return await _timed(slot, in_one_go, timings)
        assert self._remote is not None
        steps = cropper.steps()
        found: Detections | None = None
        while True:
            step = await _timed(slot, partial(_next, steps, found), timings)
            if isinstance(step, Crops):
                return step
            with timings.stage("detect"):
                found = await self._remote.detect(
                    step.image, step.min_face_px, query.min_detection_confidence, deadline
                )

    async def _classify(self, faces: Faces, deadline: Deadline, timings: Timings) -> Classification:
        if not len(faces):
            shapes = (0, len(self._manifest.labels)), (0, 2, 4), (0, 1), (0, 1)
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
        self,
        crops: Crops,
        probabilities: NDArray[np.float32],
        factors: NDArray[np.float32],
        deadline: Deadline,
    ) -> list[Drawing]:
        """Heatmaps of the largest faces, one at a time, so that other requests' faces run in between."""
        answers = []
        for face, row in zip(crops.faces[:HEATMAP_FACES], probabilities, strict=False):
            covered, _ = await self._batcher.classify(heatmap.cover(face), deadline)
            changed = with_factors(covered.probabilities, factors)
            answers.append((float(row.max()), changed[:, row.argmax()]))

        def draw() -> list[Drawing]:
            placements = crops.placements(self._manifest.input)
            size = self._manifest.input.size
            return [heatmap.draw(*answer, at, size) for answer, at in zip(answers, placements, strict=False)]

        return await asyncio.to_thread(draw)


def _search_here(
    cropper: Cropper, detector: LocalDetector, query: Query, slot: Slot, timings: Timings
) -> Crops:
    """Run all steps in one thread. Raises `GivenUp` between steps when no caller waits for the image."""
    steps = cropper.steps()
    found: Detections | None = None
    while True:
        step = _next(steps, found)
        if isinstance(step, Crops):
            return step
        slot.check()
        with timings.stage("detect"):
            found = detector.find(step.image, step.min_face_px, query.min_detection_confidence)
        slot.check()


def _next(steps: Generator[SearchPlan, Detections, Crops], found: Detections | None) -> SearchPlan | Crops:
    """found: in the image that was yielded last, None before the first step."""
    try:
        return next(steps) if found is None else steps.send(found)
    except StopIteration as end:
        crops: Crops = end.value
        return crops


async def _timed(slot: Slot, function: Callable[[], T], timings: Timings) -> T:
    """Run `function` on the slot's thread. Time that `function` does not record counts as `queue`."""
    started, before = time.perf_counter(), timings.total()
    result = await slot.run(function)
    waited = time.perf_counter() - started - (timings.total() - before)
    timings.add("queue", waited)
    return result
