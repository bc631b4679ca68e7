"""What was seen of one video so far: its tracks, its minutes and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image as Pictures

from service.api.recordings import RecordingReport
from service.api.schemas import ModelName
from service.api.shaping import shape_track
from service.recordings.chart import Chart, Form
from service.recordings.minutes import Minutes
from service.tracking.record import Followed, Record
from service.tracking.smoothing import TIME_CONSTANT_S


class Recording:
    """Collects the frames of a video in their order. It keeps numbers and sums, and no pictures."""

    def __init__(self, labels: Sequence[str], threshold: float, fps: float) -> None:
        """threshold: the lowest confidence that is certain, from the model's manifest."""
        self._labels = labels
        self._chart = Chart(labels)
        self._minutes = Minutes(labels, 1 / fps)
        self.record = Record(TIME_CONSTANT_S, threshold)
        self.frames = 0

    def add(self, time_s: float, followed: Sequence[Followed]) -> None:
        """followed: the faces of one frame, from `record`."""
        self.frames += 1
        self._chart.add(time_s, followed)
        self._minutes.add(time_s, followed)

    def report(self, model: ModelName) -> RecordingReport:
        """The whole video. Called once, after the last frame."""
        self._minutes.end()
        return RecordingReport(
            model=model,
            duration_s=round(self._minutes.duration_s, 3),
            tracks=[shape_track(track, self._labels) for track in self.record.totals()],
            tracks_omitted=self.record.omitted,
            minutes=self._minutes.minutes(),
            group=self._minutes.whole(),
        )

    def picture(self, form: Form, thumbnails: Mapping[int, Pictures.Image] | None = None) -> bytes:
        """A file with the timelines of the tracks with most frames. thumbnails: of tracks by number."""
        return self._chart.draw(self.record.totals(), self.record.omitted, thumbnails or {}, form)
