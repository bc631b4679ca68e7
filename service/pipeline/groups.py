"""The pipeline of a service that answers for groups only."""

from __future__ import annotations

import numpy as np

from service.core.arrays import Image
from service.core.deadline import Deadline
from service.core.query import MAX_FACES, Query
from service.core.seen import Seen, SeenGroup
from service.core.timings import Timings
from service.pipeline.pipeline import Pipeline

# The same query for every caller: all faces that the detector finds.
ALL_FACES = Query(max_faces=MAX_FACES)

# Finer steps would be false precision. They would also reveal more about a face when two images differ only
# by this face.
GROUP_STEP = 0.05


class GroupPipeline:
    """A pipeline that returns no single face. Callers do not choose which faces are in the group."""

    def __init__(self, faces: Pipeline, min_faces: int) -> None:
        self._faces = faces
        self._min_faces = min_faces
        self.prior = faces.prior

    async def start(self) -> None:
        await self._faces.start()

    async def close(self) -> None:
        await self._faces.close()

    async def run(self, image: bytes | Image, deadline: Deadline, timings: Timings) -> SeenGroup:
        """The faces of an image as a group. Raises what `Pipeline.run` raises."""
        return group_of(await self._faces.run(image, ALL_FACES, deadline, timings), self._min_faces)


def group_of(seen: Seen, min_faces: int) -> SeenGroup:
    """The mean of an image's faces; empty for fewer than `min_faces` faces."""
    if seen.face_count < min_faces:
        return SeenGroup(seen.width, seen.height, min_faces, seen.labels)
    steps = np.rint(seen.probabilities.mean(axis=0, dtype=np.float64) / GROUP_STEP)
    return SeenGroup(
        seen.width, seen.height, min_faces, seen.labels, seen.face_count, probabilities=steps * GROUP_STEP
    )
