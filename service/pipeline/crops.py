"""One image from its bytes to the faces cut out of it: the work that needs its pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.api.schemas import EmotionQuery, ImageSize
from service.core.arrays import Detections, FaceQuality, Faces, Photo
from service.core.errors import EngineContractError
from service.core.manifest import Input
from service.core.timings import Timings
from service.vision.align import align_faces, placement, whole_image, whole_placement
from service.vision.decode import decode
from service.vision.detect import SearchPlan, search, select, shrinkage, tolerable_shrinkage, too_narrow
from service.vision.quality import measure


@dataclass(frozen=True, slots=True)
class Framed:
    """What is left of an image once its pixels are gone."""

    size: ImageSize
    detections: Detections | None
    boxes: NDArray[np.float32]
    faces: Faces
    quality: list[FaceQuality]

    def placements(self, frame: Input) -> list[tuple[complex, complex]]:
        """Where each face was cut out of the image, in its pixels."""
        whole = whole_placement(self.size.width, self.size.height, frame.size)
        if self.detections is None:
            return [whole]
        landmarks = self.detections.landmarks
        return [placement(points, frame.crop, frame.size) or whole for points in landmarks]


class Framing:
    """The steps of one image, in this order, each in a worker thread: `plan`, then `frame`; or `whole`.

    frame: how faces are cut for the classifier. timings: where each step says how long it took.
    """

    def __init__(
        self, data: bytes, query: EmotionQuery, frame: Input, pixel_limit: int, timings: Timings
    ) -> None:
        self._data = data
        self._query = query
        self._frame = frame
        self._pixel_limit = pixel_limit
        self._timings = timings
        self._photo: Photo

    def whole(self) -> Framed:
        """The image is one face. Raises what `decode` raises."""
        self._decode(None)
        with self._timings.stage("align"):
            photo = self._photo
            boxes = np.array([[0, 0, photo.width, photo.height]], np.float32)
            faces = whole_image(photo.pixels, self._frame.size)
            return Framed(self._size, None, boxes, faces, measure(faces, boxes, None))

    def plan(self) -> SearchPlan | None:
        """What a detector is to search; None where nothing could be found. Raises what `decode` raises."""
        least = self._query.min_face_px
        self._decode(lambda width, height: shrinkage(width, height, least))
        with self._timings.stage("decode"):
            if too_narrow(self._photo.width, self._photo.height, least):
                return None
            return search(self._photo, least)

    def frame(self, plan: SearchPlan | None, found: Detections) -> Framed:
        """Cut the faces out that a detector found in the plan's image. Raises `EngineContractError`."""
        with self._timings.stage("detect"):
            if plan is not None:
                _check(found)
                photo = self._photo
                found = select(found.scaled(plan.scale), photo.width, photo.height, self._query.max_faces)
        # The crop is about as wide as the box is high; fewer pixels than it has would blur it.
        tolerable = tolerable_shrinkage(found, self._frame.size)
        if self._photo.scale > tolerable:
            self._decode(lambda *_: tolerable)
        with self._timings.stage("align"):
            photo = self._photo
            landmarks = found.scaled(1 / photo.scale).landmarks
            faces = align_faces(photo.pixels, landmarks, self._frame.crop, self._frame.size)
            return Framed(self._size, found, found.boxes, faces, measure(faces, found.boxes, found.landmarks))

    @property
    def _size(self) -> ImageSize:
        return ImageSize(width=self._photo.width, height=self._photo.height)

    def _decode(self, shrinkage: Callable[[int, int], int] | None) -> None:
        with self._timings.stage("decode"):
            self._photo = decode(self._data, pixel_limit=self._pixel_limit, shrinkage=shrinkage)


def _check(found: Detections) -> None:
    """Wrong shapes and values must not become wrong answers."""
    count = len(found.boxes)
    shapes = found.boxes.shape, found.scores.shape, found.landmarks.shape
    if shapes != ((count, 4), (count,), (count, 5, 2)):
        raise EngineContractError("boxes {}, scores {}, landmarks {}".format(*shapes))
    if not all(np.isfinite(part).all() for part in (found.boxes, found.scores, found.landmarks)):
        raise EngineContractError("boxes, scores or landmarks are not finite")
