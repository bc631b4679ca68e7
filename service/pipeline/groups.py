"""The pipeline of a service that speaks of groups alone."""

from __future__ import annotations

import numpy as np

from service.core.arrays import Image
from service.core.deadline import Deadline
from service.core.query import MAX_FACES, Query
from service.core.seen import Seen, SeenGroup
from service.core.timings import Timings
from service.pipeline.pipeline import Pipeline

# Every face that is found, in the same way for every caller.
ALL_FACES = Query(max_faces=MAX_FACES)

# Finer would be false precision, and would tell more of the one face by which two images differ.
GROUP_STEP = 0.05


class GroupPipeline:
    """A pipeline that keeps every single face to itself. No caller chooses which faces are in the group."""

    def __init__(self, faces: Pipeline, min_faces: int) -> None:
        self._faces = faces
        self._min_faces = min_faces

    async def start(self) -> None:
        await self._faces.start()

    async def close(self) -> None:
        await self._faces.close()

    async def run(self, image: bytes | Image, deadline: Deadline, timings: Timings) -> SeenGroup:
        """The faces of an image together. Raises what `Pipeline.run` raises."""
        return group_of(await self._faces.run(image, ALL_FACES, deadline, timings), self._min_faces)


def group_of(seen: Seen, min_faces: int) -> SeenGroup:
    """The mean of an image's faces, or nothing of them if they are few."""
    if seen.face_count < min_faces:
        return SeenGroup(seen.width, seen.height, min_faces, seen.labels)
    steps = np.rint(seen.probabilities.mean(axis=0, dtype=np.float64) / GROUP_STEP)
    return SeenGroup(
        seen.width, seen.height, min_faces, seen.labels, seen.face_count, probabilities=steps * GROUP_STEP
    )
