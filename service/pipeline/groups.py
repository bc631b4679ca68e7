"""The pipeline of a service that answers for groups only."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from service.core.arrays import Image
from service.core.deadline import Deadline
from service.core.query import MAX_FACES, Query
from service.core.seen import Seen, SeenGroup
from service.core.timings import Timings
from service.pipeline.pipeline import Pipeline
from service.tracking.record import Record

# The same query for every caller: all faces that the detector finds.
ALL_FACES = Query(max_faces=MAX_FACES)
ALL_FACES_OF_FRAME = Query(max_faces=MAX_FACES, turned=False)  # a video says which way is up

# Finer steps would be false precision. They would also reveal more about a face when two images differ only
# by this face.
GROUP_STEP = 0.05


class GroupPipeline:
    """A pipeline that returns no single face. Callers do not choose which faces are in the group."""

    def __init__(self, faces: Pipeline, min_faces: int) -> None:
        self._faces = faces
        self.min_faces = min_faces
        self.prior = faces.prior

    async def start(self) -> None:
        await self._faces.start()

    async def close(self) -> None:
        await self._faces.close()

    def stream(self, time_constant_s: float) -> GroupStream:
        return GroupStream(self._faces, self.min_faces, time_constant_s)

    async def run(self, image: bytes | Image, deadline: Deadline, timings: Timings) -> SeenGroup:
        """The faces of an image as a group. Raises what `Pipeline.run` raises."""
        query = ALL_FACES if isinstance(image, bytes) else ALL_FACES_OF_FRAME
        return group_of(await self._faces.run(image, query, deadline, timings), self.min_faces)


def group_of(seen: Seen, min_faces: int) -> SeenGroup:
    """The mean of an image's faces; empty for fewer than `min_faces` faces."""
    if seen.face_count < min_faces:
        return SeenGroup(seen.width, seen.height, min_faces, seen.labels, outcome=seen.outcome)
    return SeenGroup(
        seen.width,
        seen.height,
        min_faces,
        seen.labels,
        seen.face_count,
        in_steps(seen.probabilities),
        seen.outcome,
    )


class GroupStream:
    """The people before one camera. An answer is the mean of their smoothed probabilities.

    A face counts as long as it keeps its number, so the group changes only when somebody comes or goes.
    """

    def __init__(self, faces: Pipeline, min_faces: int, time_constant_s: float) -> None:
        self._faces = faces
        self._min_faces = min_faces
        self._record = Record(time_constant_s, threshold=1.0)
        self._secret = new_secret()
        self._rows: dict[int, NDArray[np.float64]] = {}

    async def run(self, image: bytes, time_s: float, deadline: Deadline, timings: Timings) -> SeenGroup:
        """Raises what `Pipeline.run` raises. Frames come one by one, and `time_s` never decreases."""
        # Cameras know which way is up.
        seen = await self._faces.run(image, replace(ALL_FACES, turned=False), deadline, timings)
        rows = {face.number: face.probabilities for face in self._record.update(seen, time_s)}
        self._rows = {number: (self._rows | rows)[number] for number in self._record.kept}
        needed = min_members(self._min_faces)
        group = SeenGroup(seen.width, seen.height, needed, seen.labels, outcome=seen.outcome)
        if len(self._rows) < needed:
            return group
        counted = drawn((str(number) for number in self._rows), self._min_faces, self._secret)
        mean = in_steps(np.array([self._rows[int(number)] for number in counted]))
        return replace(group, face_count=len(self._rows), probabilities=mean)


def in_steps(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """The mean of rows, in coarse steps: [N,C] -> [C]."""
    steps: NDArray[np.float64] = np.rint(rows.mean(axis=0, dtype=np.float64) / GROUP_STEP)
    return steps * GROUP_STEP


def new_secret() -> bytes:
    return secrets.token_bytes(16)


def min_members(min_group: int) -> int:
    """How many members `drawn` needs so that `min_group` are counted."""
    return 2 * min_group - 1


def drawn(members: Iterable[str], min_group: int, secret: bytes) -> list[str]:
    """The members that count: all but `min_group - 1`, which are omitted by lot.

    When one member comes or goes, others are omitted, so the difference of two answers is never about one
    person. The same members always draw the same lot: no number of answers averages it out.
    """
    names = sorted(members)
    lot = blake2b("\0".join(names).encode(), key=secret).digest()
    order = sorted(names, key=lambda name: blake2b(name.encode(), key=lot).digest())
    return order[min_group - 1 :]
