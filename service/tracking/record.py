"""The faces of a stream or video over time: tracks, smoothed answers and totals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.core.arrays import corner_and_size
from service.core.seen import Seen, Verdict
from service.tracking.smoothing import Smoother
from service.tracking.tracks import Tracker

# Bounds the memory of a stream that films a crowd for days.
MAX_TRACKS = 1000


@dataclass(frozen=True, slots=True)
class Followed:
    """One face in one frame. number: its track; new: whether this is the track's first frame.

    probabilities: float64 [C], smoothed; verdict: smoothed, too.
    """

    number: int
    new: bool
    probabilities: NDArray[np.float64]
    verdict: Verdict

    @property
    def best(self) -> int:
        """The column of the smoothed emotion."""
        return int(self.probabilities.argmax())


@dataclass(frozen=True, slots=True)
class TrackTotals:
    """One track as a whole. probabilities: float64 [C], the mean over its frames.

    time_share: float64 [C], the share of time of each smoothed emotion. certain: the share of time with the
    smoothed verdict `certain`.
    """

    number: int
    first_seen_s: float
    last_seen_s: float
    frames: int
    probabilities: NDArray[np.float64]
    time_share: NDArray[np.float64]
    certain: float


class Record:
    """The faces of one stream so far: numbers and sums, no pictures."""

    def __init__(
        self,
        time_constant_s: float,
        threshold: float,
        *,
        max_unseen_s: float | None = None,
        one_person: bool = False,
    ) -> None:
        """threshold: the lowest confidence that is certain, from the model's manifest.

        max_unseen_s: for `Tracker`. one_person: every face has the number 1; a frame has one face at most.
        """
        self._time_constant_s = time_constant_s
        self._threshold = threshold
        self._tracker = None if one_person else Tracker(max_unseen_s)
        self._tracks: dict[int, _RunningTotals] = {}
        self._in_last_frame: list[_RunningTotals] = []
        self._last_s = 0.0
        self.omitted = 0

    def update(self, seen: Seen, time_s: float) -> list[Followed]:
        """The faces of one frame, in the order of `seen`. `time_s` must never decrease."""
        for seen_before in self._in_last_frame:
            seen_before.lasted(time_s - self._last_s)
        self._last_s, self._in_last_frame = time_s, []
        rows = seen.probabilities.astype(np.float64)
        followed = []
        for face, (number, row) in enumerate(zip(self._numbers(seen, time_s), rows, strict=True)):
            track = self._tracks.get(number)
            if track is None:
                track = _RunningTotals(number, time_s, len(row), self._time_constant_s, self._threshold)
                self._tracks[number] = track
            followed.append(track.update(row, seen.verdict(face), time_s))
            self._in_last_frame.append(track)
        while len(self._tracks) > MAX_TRACKS:
            del self._tracks[min(self._tracks, key=lambda number: self._tracks[number].last_s)]
            self.omitted += 1
        return followed

    def _numbers(self, seen: Seen, time_s: float) -> list[int]:
        if self._tracker is None:
            return [1] * seen.face_count
        return self._tracker.update(corner_and_size(seen.boxes), time_s)

    @property
    def kept(self) -> list[int]:
        """The faces that keep their numbers for now, seen or not."""
        return [1] if self._tracker is None else self._tracker.numbers

    def totals(self) -> list[TrackTotals]:
        return [track.totals() for track in self._tracks.values()]


class _RunningTotals:
    """The sums of one track. The time between two frames counts for the emotion of the earlier frame."""

    def __init__(
        self, number: int, time_s: float, labels: int, time_constant_s: float, threshold: float
    ) -> None:
        self._number = number
        self._first_s = self.last_s = time_s
        self._threshold = threshold
        self._probabilities = Smoother(time_constant_s)
        self._certainty = Smoother(time_constant_s)
        self._last: Followed | None = None
        self._sum = np.zeros(labels)
        self._seconds = np.zeros(labels)
        self._certain_s = 0.0
        self._frames = 0

    def lasted(self, seconds: float) -> None:
        """The time from the last frame with this face to the next frame."""
        if self._last is not None:
            self._seconds[self._last.best] += seconds
            self._certain_s += seconds * (self._last.verdict == "certain")

    def update(self, row: NDArray[np.float64], verdict: Verdict, time_s: float) -> Followed:
        smoothed = self._probabilities.update(row, time_s)
        (certainty,) = self._certainty.update(np.array([verdict == "certain"], np.float64), time_s)
        self._sum += row
        self._frames += 1
        self.last_s = time_s
        # Several uncertain frames, for example of poor quality, must not become a certain answer together.
        certain = smoothed.max() >= self._threshold and certainty > 0.5
        self._last = Followed(
            self._number, self._frames == 1, smoothed, "certain" if certain else "uncertain"
        )
        return self._last

    def totals(self) -> TrackTotals:
        if self._last is None:
            raise ValueError("the track has no frames")
        seconds, certain_s = self._seconds, self._certain_s
        if not seconds.any():  # only one moment was seen
            seconds = np.zeros(len(seconds))
            seconds[self._last.best] = 1.0
            certain_s = float(self._last.verdict == "certain")
        total_s = seconds.sum()
        return TrackTotals(
            number=self._number,
            first_seen_s=self._first_s,
            last_seen_s=self.last_s,
            frames=self._frames,
            probabilities=self._sum / self._frames,
            time_share=seconds / total_s,
            certain=float(certain_s / total_s),
        )
