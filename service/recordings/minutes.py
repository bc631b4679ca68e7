"""The time of all faces of a video, by minute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.api.recordings import MINUTE_S, Minute, TimeShares
from service.core.seen import Verdict
from service.tracking.record import Followed
from service.tracking.tracks import LOST_S


@dataclass(slots=True)
class _Sums:
    """Seconds of one period. emotions: float64 [C], of all faces together."""

    emotions: NDArray[np.float64]
    frames: int = 0
    whole_s: float = 0.0
    absent_s: float = 0.0
    certain_s: float = 0.0

    def add(self, seconds: float, faces: Sequence[tuple[int, Verdict]]) -> None:
        self.whole_s += seconds
        self.absent_s += seconds * (not faces)
        for emotion, verdict in faces:
            self.emotions[emotion] += seconds
            self.certain_s += seconds * (verdict == "certain")

    def shares(self, labels: Sequence[str]) -> TimeShares:
        seen_s = float(self.emotions.sum())
        shares = TimeShares(
            frames=self.frames,
            absent=round(self.absent_s / self.whole_s, 4) if self.whole_s else 1.0,
            seen_s=round(seen_s, 3),
        )
        if seen_s:
            row = (self.emotions / seen_s).tolist()
            shares.time_share = {label: round(share, 4) for label, share in zip(labels, row, strict=True)}
            shares.certain = round(self.certain_s / seen_s, 4)
        return shares


class Minutes:
    """Sums by minute. The time between two frames counts for the faces of the earlier frame.

    A frame counts for `LOST_S` at most: a longer gap says nothing about who was there. The last frame counts
    for as long as the frame before it.
    """

    def __init__(self, labels: Sequence[str], frame_s: float) -> None:
        """frame_s: for how long the only frame of a video counts."""
        self._labels = labels
        self._whole = self._empty()
        self._minutes: dict[int, _Sums] = {}
        self._usual_s = frame_s
        self._last_s: float | None = None
        self._faces: list[tuple[int, Verdict]] = []
        self.duration_s = 0.0
        """Until the end of the last frame. 0 before `end`."""

    def add(self, time_s: float, followed: Sequence[Followed]) -> None:
        if self._last_s is not None:
            self._usual_s = min(time_s - self._last_s, LOST_S)
            self._spread(self._last_s)
        self._last_s = time_s
        self._faces = [(track.best, track.verdict) for track in followed]
        self._whole.frames += 1
        self._at(time_s).frames += 1

    def end(self) -> None:
        """Count the last frame. Called once, before the results are read."""
        if self._last_s is not None:
            self._spread(self._last_s)
            self.duration_s = self._last_s + self._usual_s

    def minutes(self) -> list[Minute]:
        """The minutes with a frame, in order."""
        return [
            Minute(
                start_s=number * MINUTE_S,
                end_s=round(min((number + 1) * MINUTE_S, self.duration_s), 3),
                **dict(sums.shares(self._labels)),
            )
            for number, sums in sorted(self._minutes.items())
        ]

    def whole(self) -> TimeShares:
        return self._whole.shares(self._labels)

    def _spread(self, start_s: float) -> None:
        for part_s, seconds in _parts(start_s, start_s + self._usual_s):
            self._at(part_s).add(seconds, self._faces)
            self._whole.add(seconds, self._faces)

    def _at(self, time_s: float) -> _Sums:
        return self._minutes.setdefault(int(time_s // MINUTE_S), self._empty())

    def _empty(self) -> _Sums:
        return _Sums(np.zeros(len(self._labels)))


def _parts(start_s: float, end_s: float) -> Iterator[tuple[float, float]]:
    """The begin and the length of the part of a span in each minute."""
    while start_s < end_s:
        until_s = min(end_s, (start_s // MINUTE_S + 1) * MINUTE_S)
        yield start_s, until_s - start_s
        start_s = until_s
