"""The groups of a video, by minute, in group mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.api.recordings import MINUTE_S, GroupMinute, GroupShares
from service.core.seen import SeenGroup
from service.pipeline.groups import GROUP_STEP


@dataclass(slots=True)
class _Sums:
    """probabilities: float64 [C], summed over the frames with a group."""

    probabilities: NDArray[np.float64]
    frames: int = 0
    grouped: int = 0

    def add(self, seen: SeenGroup) -> None:
        self.frames += 1
        if seen.probabilities is not None:
            self.grouped += 1
            self.probabilities += seen.probabilities

    def shares(self, labels: Sequence[str], min_faces: int) -> GroupShares:
        shares = GroupShares(
            min_faces=min_faces, grouped=_rounded(self.grouped / self.frames) if self.frames else 0.0
        )
        if self.grouped:
            means = (self.probabilities / self.grouped).tolist()
            shares.probabilities = {label: _rounded(mean) for label, mean in zip(labels, means, strict=True)}
        return shares


class GroupMinutes:
    """Means over the frames that show a group.

    A frame with too few faces is in no mean, so the difference of two means is about groups too.
    """

    def __init__(self, labels: Sequence[str], min_faces: int, frame_s: float) -> None:
        """frame_s: for how long the last frame counts."""
        self._labels = labels
        self._min_faces = min_faces
        self._frame_s = frame_s
        self._whole = self._empty()
        self._minutes: dict[int, _Sums] = {}
        self.duration_s = 0.0

    def add(self, time_s: float, seen: SeenGroup) -> None:
        self.duration_s = time_s + self._frame_s
        self._whole.add(seen)
        self._minutes.setdefault(int(time_s // MINUTE_S), self._empty()).add(seen)

    def minutes(self) -> list[GroupMinute]:
        """The minutes with a frame, in order."""
        return [
            GroupMinute(
                start_s=number * MINUTE_S,
                end_s=round(min((number + 1) * MINUTE_S, self.duration_s), 3),
                **dict(sums.shares(self._labels, self._min_faces)),
            )
            for number, sums in sorted(self._minutes.items())
        ]

    def whole(self) -> GroupShares:
        return self._whole.shares(self._labels, self._min_faces)

    def _empty(self) -> _Sums:
        return _Sums(np.zeros(len(self._labels)))


def _rounded(share: float) -> float:
    return round(round(share / GROUP_STEP) * GROUP_STEP, 2)
