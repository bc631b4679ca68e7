"""What is seen in the frames of a recording, and what becomes of it: faces, or groups in group mode."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from service.api.recordings import GroupRecordingQuery, GroupRecordingReport, RecordingQuery
from service.api.schemas import ModelName
from service.core.arrays import Image
from service.core.deadline import Deadline
from service.core.manifest import ClassifierManifest
from service.core.seen import VERDICTS, Seen, SeenGroup
from service.core.timings import Timings
from service.pipeline.groups import GroupPipeline
from service.pipeline.pipeline import Pipeline
from service.pipeline.timeline import Moment
from service.recordings.chart import CANVASES
from service.recordings.group_minutes import GroupMinutes
from service.recordings.recording import Recording
from service.recordings.results import Lines, Results, TimelineHead
from service.recordings.rows import frame_of
from service.telemetry.audit import AuditTotals
from service.telemetry.metrics import Metrics


class Analysis(Protocol):
    """The analysis of one recording. `see` runs for several frames at a time, `add` in their order."""

    async def see(self, pixels: Image, deadline: Deadline) -> Any:
        """Raises the errors of the pipeline."""
        ...

    def add(self, time_s: float, pixels: Image, seen: Any) -> None:
        """seen: what `see` returned. Raises `VideoTooLong` if there is too much to keep."""
        ...

    def results(self) -> Results:
        """Called once, on a thread, after the last frame."""
        ...

    def totals(self) -> AuditTotals: ...


def analysis_of(
    pipeline: Pipeline | GroupPipeline,
    card: ClassifierManifest,
    query: RecordingQuery | GroupRecordingQuery,
    metrics: Metrics,
) -> Analysis:
    if isinstance(pipeline, GroupPipeline):
        return GroupAnalysis(pipeline, card, query.fps)
    assert isinstance(query, RecordingQuery)
    return FaceAnalysis(pipeline, card, query, metrics)


class FaceAnalysis:
    """Follows single faces."""

    def __init__(
        self, pipeline: Pipeline, card: ClassifierManifest, query: RecordingQuery, metrics: Metrics
    ) -> None:
        self._pipeline = pipeline
        self._query = query
        self._options = query.to_pipeline()
        self._region = query.part
        self._model = ModelName.of(card, query.prior or pipeline.prior)
        self._labels = card.labels
        self._metrics = metrics
        self._recording = Recording(card.labels, card.verdict.threshold, query.fps)
        self._lines = Lines()
        self._timings = Timings()
        self._verdicts: Counter[str] = Counter(dict.fromkeys(VERDICTS, 0))

    async def see(self, pixels: Image, deadline: Deadline) -> Seen:
        if self._region is None:
            return await self._pipeline.run(pixels, self._options, deadline, self._timings)
        part = self._region.crop(pixels)
        seen = await self._pipeline.run(part, self._options, deadline, self._timings)
        return self._region.in_frame(seen, pixels.shape[1], pixels.shape[0])

    def add(self, time_s: float, pixels: Image, seen: Seen) -> None:
        followed = self._recording.record.update(seen, time_s)
        self._verdicts.update(seen.verdicts)
        for face, track in enumerate(followed):
            # Each track counts once: otherwise one face before a camera would dominate the metrics.
            if track.new:
                self._metrics.face(seen, face)
        self._recording.add(time_s, followed)
        self._lines.add(frame_of(Moment(time_s, pixels, seen, followed), self._query))

    def results(self) -> Results:
        pictures = {form: self._recording.picture(form) for form in CANVASES}
        report = self._recording.report(self._model).model_dump_json(exclude_none=True)
        head = TimelineHead(model=self._model, labels=self._labels, query=self._query)
        return Results(report.encode(), self._lines.end(), pictures, head)

    def totals(self) -> AuditTotals:
        return AuditTotals(
            self._recording.frames, 0, self._verdicts.total(), self._verdicts, self._timings.seconds
        )


class GroupAnalysis:
    """Sees no single face: only frames with a group count."""

    def __init__(self, pipeline: GroupPipeline, card: ClassifierManifest, fps: float) -> None:
        self._pipeline = pipeline
        self._model = ModelName.of(card, pipeline.prior)
        self._minutes = GroupMinutes(card.labels, pipeline.min_faces, 1 / fps)
        self._timings = Timings()
        self._frames = self._faces = 0

    async def see(self, pixels: Image, deadline: Deadline) -> SeenGroup:
        return await self._pipeline.run(pixels, deadline, self._timings)

    def add(self, time_s: float, pixels: Image, seen: SeenGroup) -> None:
        self._frames += 1
        self._faces += seen.face_count
        self._minutes.add(time_s, seen)

    def results(self) -> Results:
        report = GroupRecordingReport(
            model=self._model,
            duration_s=round(self._minutes.duration_s, 3),
            minutes=self._minutes.minutes(),
            group=self._minutes.whole(),
        )
        return Results(report.model_dump_json(exclude_none=True).encode())

    def totals(self) -> AuditTotals:
        return AuditTotals(self._frames, 0, self._faces, {}, self._timings.seconds)
