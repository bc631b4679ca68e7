"""Match the faces of a frame with those of earlier frames, by place, size and motion alone.

This module never looks at a face, so it recognises no person: who was away for long gets a new number.

Sources:
SORT (Bewley et al., arXiv 1602.00763): boxes move at constant velocity and are paired by overlap.
ByteTrack (Zhang et al., arXiv 2110.06864): a second round pairs the remaining boxes.
OC-SORT (Cao et al., arXiv 2203.14360): a lost face is also expected where it was last seen.

An alpha-beta filter replaces their Kalman filter: it is a Kalman filter's steady state, and takes frames at
uneven times.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.tracking.assignment import FORBIDDEN, assign

Boxes = NDArray[np.float64]  # N,4: centre x, centre y, width, height in px

LOST_S = 2.0
"""How long a face that is not seen keeps its number, at 2.5 frames per second and more."""
FRAMES_LOST = 5
"""For how many frames it keeps its number at fewer frames per second."""

MIN_OVERLAP = 0.3
# Where two tracks overlap, the track that was lost for longer is less likely.
LOST_COST_PER_S = 0.5
# Limits of the second round. Distance from the expected place, in sizes of the face: at once, per second of
# absence, and in total; after LOST_S most people sit still. MAX_GROWTH: how much larger or smaller the face
# may be.
REACH_SIZES, REACH_SIZES_PER_S, MAX_REACH_SIZES, SITTING_REACH_SIZES = 0.5, 2.0, 2.5, 1.5
MAX_GROWTH = 1.6
# Filter weights of a new position, speed and size.
ALPHA, BETA, GAMMA = 0.85, 0.4, 0.5
# Boxes tremble, so a short step is a poor measure of speed: speed is measured over at least MIN_STEP_S. For a
# new face MIN_FIRST_STEP_S is enough, so that a fast face is not lost.
MIN_STEP_S, MIN_FIRST_STEP_S = 0.1, 0.02


@dataclass(slots=True, eq=False)
class Track:
    """One face: its number, and where it is expected."""

    number: int
    box: Boxes  # [4]
    velocity: NDArray[np.float64]  # [2] px/s
    since_s: float
    first: Boxes  # [4], at `since_s`
    seen_s: float
    seen: Boxes  # [4], at `seen_s`

    def expected(self, time_s: float) -> Boxes:
        # A speed is extrapolated no longer than it was measured, and nobody walks straight on for long.
        lasts_s = min(time_s - self.seen_s, self.seen_s - self.since_s, LOST_S)
        box = self.box.copy()
        box[:2] += self.velocity * lasts_s
        return box

    def found(self, box: Boxes, time_s: float) -> None:
        expected = self.expected(time_s)
        off = box[:2] - expected[:2]
        if self.seen_s - self.since_s < MIN_STEP_S:
            self.velocity = (box[:2] - self.first[:2]) / max(time_s - self.since_s, MIN_FIRST_STEP_S)
        else:
            self.velocity += BETA * off / max(time_s - self.seen_s, MIN_STEP_S)
        self.box = np.concatenate(
            [expected[:2] + ALPHA * off, expected[2:] + GAMMA * (box[2:] - expected[2:])]
        )
        self.seen, self.seen_s = box, time_s


class Tracker:
    """The tracks of one stream. Numbers begin at 1 and are never reused.

    max_unseen_s: how long a face that is not seen keeps its number; None follows the frame rate.
    """

    def __init__(self, max_unseen_s: float | None = None) -> None:
        self._max_unseen_s = max_unseen_s
        self._numbers = itertools.count(1)
        self._tracks: list[Track] = []
        self._last_s: float | None = None
        self._gaps_s: deque[float] = deque(maxlen=FRAMES_LOST)

    @property
    def numbers(self) -> list[int]:
        """The faces that keep their numbers for now, seen or not."""
        return [track.number for track in self._tracks]

    def update(self, boxes: NDArray[np.float64], time_s: float) -> list[int]:
        """boxes: float64 [N,4], left, top, width, height in px -> track numbers. `time_s` never decreases."""
        if self._last_s is not None:
            self._gaps_s.append(time_s - self._last_s)
        self._last_s = time_s
        limit_s = self._limit_s()
        self._tracks = [track for track in self._tracks if time_s - track.seen_s <= limit_s]
        found = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
        matched: dict[int, Track] = {}
        for cost in (_overlap_cost, _distance_cost):
            tracks = [track for track in self._tracks if track not in matched.values()]
            remaining = [index for index in range(len(found)) if index not in matched]
            if tracks and remaining:
                for row, column in assign(cost(tracks, found[remaining], time_s)):
                    matched[remaining[column]] = tracks[row]
        numbers = []
        for index, box in enumerate(found):
            track = matched.get(index)
            if track is None:
                track = Track(next(self._numbers), box, np.zeros(2), time_s, box, time_s, box)
                self._tracks.append(track)
            else:
                track.found(box, time_s)
            numbers.append(track.number)
        return numbers

    def _limit_s(self) -> float:
        if self._max_unseen_s is not None:
            return self._max_unseen_s
        # The median: a pause of the camera is no change of its rate.
        usual_s = sorted(self._gaps_s)[len(self._gaps_s) // 2] if self._gaps_s else 0.0
        return max(LOST_S, FRAMES_LOST * usual_s)


def _overlap_cost(tracks: list[Track], found: Boxes, time_s: float) -> NDArray[np.float64]:
    """1 minus the overlap (intersection over union), plus a cost for each second of absence: [R,C]."""
    expected = np.stack([track.expected(time_s) for track in tracks])[:, None]
    sides = np.minimum(
        expected[..., :2] + expected[..., 2:] / 2, found[:, :2] + found[:, 2:] / 2
    ) - np.maximum(expected[..., :2] - expected[..., 2:] / 2, found[:, :2] - found[:, 2:] / 2)
    shared = np.maximum(sides, 0).prod(-1)
    overlap = shared / np.maximum(expected[..., 2:].prod(-1) + found[:, 2:].prod(-1) - shared, 1e-9)
    cost = 1 - overlap + LOST_COST_PER_S * _away_s(tracks, time_s)
    return np.where(overlap >= MIN_OVERLAP, cost, FORBIDDEN)


def _distance_cost(tracks: list[Track], found: Boxes, time_s: float) -> NDArray[np.float64]:
    """The distance of the centres in sizes of the face, plus the change of size (log): [R,C]."""
    sizes = np.stack([_size(track.seen) for track in tracks])[:, None]
    off = np.minimum(
        _distance(np.stack([track.expected(time_s) for track in tracks]), found),
        _distance(np.stack([track.seen for track in tracks]), found),
    )
    growth = np.abs(np.log(_size(found) / sizes))
    away_s = _away_s(tracks, time_s)
    most = np.where(away_s < LOST_S, MAX_REACH_SIZES, SITTING_REACH_SIZES)
    reach = np.minimum(REACH_SIZES + REACH_SIZES_PER_S * away_s, most)
    return np.where((off / sizes <= reach) & (growth <= np.log(MAX_GROWTH)), off / sizes + growth, FORBIDDEN)


def _away_s(tracks: list[Track], time_s: float) -> NDArray[np.float64]:
    return np.array([[time_s - track.seen_s] for track in tracks])


def _size(boxes: Boxes) -> NDArray[np.float64]:
    """The side of a square of the same area: [...,4] -> [...]."""
    size: NDArray[np.float64] = np.sqrt(np.maximum(boxes[..., 2:].prod(-1), 1.0))
    return size


def _distance(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Distances between all centres: [R,4], [C,4] -> [R,C]."""
    apart = first[:, None, :2] - second[None, :, :2]
    return np.hypot(apart[..., 0], apart[..., 1])
