"""What a stream has shown: each face with its number, smoothed, and the sum of it at the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.api.schemas import Face
from service.api.stream import Smoothed, TrackedFace, TrackSummary
from service.tracking.smoothing import Smoother
from service.tracking.tracks import Tracker

# A stream may run for days before a crowd.
MOST_TRACKS = 1000


class Record:
    """The faces of one stream so far: numbers and sums, no picture."""

    def __init__(self, time_constant_s: float, threshold: float) -> None:
        """threshold: the model's, from which on a confidence is certain."""
        self._time_constant_s = time_constant_s
        self._threshold = threshold
        self._tracker = Tracker()
        self._people: dict[int, _Person] = {}
        self.left_out = 0

    def update(self, faces: Sequence[Face], time_s: float) -> list[TrackedFace]:
        """The faces of one frame, in their order; times never fall."""
        boxes = np.array([[*face.box.model_dump().values()] for face in faces], np.float64).reshape(-1, 4)
        tracked = []
        for face, number in zip(faces, self._tracker.update(boxes, time_s), strict=True):
            person = self._people.get(number)
            if person is None:
                person = self._people[number] = _Person(
                    number, time_s, self._time_constant_s, self._threshold
                )
            smoothed = person.update(face, time_s)
            tracked.append(TrackedFace(**dict(face), track=number, smoothed=smoothed))
        while len(self._people) > MOST_TRACKS:
            del self._people[min(self._people, key=lambda number: self._people[number].last_s)]
            self.left_out += 1
        return tracked

    def is_new(self, face: TrackedFace) -> bool:
        """Whether this was the first frame with this face."""
        return self._people[face.track].frames == 1

    def summary(self) -> list[TrackSummary]:
        return [person.summary() for person in self._people.values()]


class _Person:
    """The sums of one track. The time from one frame to the next counts for what the first one showed."""

    def __init__(self, number: int, time_s: float, time_constant_s: float, threshold: float) -> None:
        self._number = number
        self._first_s = self.last_s = time_s
        self._threshold = threshold
        self._probabilities = Smoother(time_constant_s)
        self._certainty = Smoother(time_constant_s)
        self._showed: Smoothed | None = None
        self._sums: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._certain_s = 0.0
        self.frames = 0

    def update(self, face: Face, time_s: float) -> Smoothed:
        labels = list(face.probabilities)
        row = self._probabilities.update(np.array([*face.probabilities.values()], np.float64), time_s)
        (certainty,) = self._certainty.update(np.array([face.verdict == "certain"], np.float64), time_s)
        if self._showed is not None:
            self._seconds[self._showed.emotion] = (
                self._seconds.get(self._showed.emotion, 0.0) + time_s - self.last_s
            )
            self._certain_s += (time_s - self.last_s) * (self._showed.verdict == "certain")
        for label, probability in face.probabilities.items():
            self._sums[label] = self._sums.get(label, 0.0) + probability
        self.frames += 1
        self.last_s = time_s
        best = int(row.argmax())
        # Frames that are uncertain each, for their quality perhaps, do not become certain together.
        certain = row[best] >= self._threshold and certainty > 0.5
        self._showed = Smoothed(
            emotion=labels[best],
            confidence=round(float(row[best]), 6),
            verdict="certain" if certain else "uncertain",
            probabilities={label: round(float(p), 6) for label, p in zip(labels, row, strict=True)},
        )
        return self._showed

    def summary(self) -> TrackSummary:
        if self._showed is None:
            raise ValueError("a track has been seen at least once")
        seconds, certain_s = self._seconds, self._certain_s
        total_s = sum(seconds.values())
        if not total_s:  # one moment is all there is
            seconds, total_s = {self._showed.emotion: 1.0}, 1.0
            certain_s = float(self._showed.verdict == "certain")
        return TrackSummary(
            track=self._number,
            first_seen_s=round(self._first_s, 3),
            last_seen_s=round(self.last_s, 3),
            frames=self.frames,
            probabilities={label: round(total / self.frames, 6) for label, total in self._sums.items()},
            time_share={label: round(seconds.get(label, 0.0) / total_s, 4) for label in self._sums},
            certain=round(certain_s / total_s, 4),
        )
