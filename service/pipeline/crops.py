"""From one image to the crops of its faces: all work that needs the image's pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.core.arrays import Detections, FaceQuality, Faces, Image, Photo
from service.core.errors import EngineContractError
from service.core.manifest import Input
from service.core.query import Query
from service.core.timings import Timings
from service.vision.align import Similarity, align_faces, placement, whole_image, whole_placement
from service.vision.decode import check_size, decode
from service.vision.detect import (
    LARGE_PX,
    QUARTERS,
    SURE_SCORE,
    SearchPlan,
    best_score,
    joined,
    largest_first,
    search,
    shrinkage,
    tolerable_shrinkage,
    too_narrow,
)
from service.vision.level import Tiles, tilted, unsure
from service.vision.quality import measure

NOTHING = Detections.none()


@dataclass(frozen=True, slots=True)
class Crops:
    """One image without its pixels. width, height, boxes and detections: px of the image.

    detections: None if the whole image is one face. faces_found: before the cut to `Query.max_faces`.
    """

    width: int
    height: int
    faces_found: int
    detections: Detections | None
    boxes: NDArray[np.float32]
    faces: Faces
    quality: list[FaceQuality]

    def placements(self, spec: Input) -> list[Similarity]:
        """The placement of each face's crop in the image."""
        whole = whole_placement(self.width, self.height, spec.size)
        if self.detections is None:
            return [whole]
        landmarks = self.detections.landmarks
        return [placement(points, spec.crop, spec.size) or whole for points in landmarks]


class Cropper:
    """The work on one image in a worker thread: `steps` between the detector's calls, or `whole` alone.

    image: an encoded image, or its pixels. spec: the classifier's input. timings: each step adds its time.
    """

    def __init__(
        self, image: bytes | Image, query: Query, spec: Input, pixel_limit: int, timings: Timings
    ) -> None:
        self._image = image
        self._query = query
        self._spec = spec
        self._pixel_limit = pixel_limit
        self._timings = timings
        self._photo: Photo

    def whole(self) -> Crops:
        """The image is one face. Raises what `decode` raises."""
        self._decode(None)
        with self._timings.stage("align"):
            photo = self._photo
            boxes = np.array([[0, 0, photo.width, photo.height]], np.float32)
            faces = whole_image(photo.pixels, self._spec.size)
            return Crops(photo.width, photo.height, 1, None, boxes, faces, measure(faces, boxes, None))

    def steps(self) -> Generator[SearchPlan, Detections, Crops]:
        """Yields what the detector must search and takes what it found; returns the crops.

        Raises what `decode` raises, and `EngineContractError`.
        """
        plan = self._plan()
        if plan is None:
            return self._crop(NOTHING, 0)
        found = yield from self._search(plan)
        if self._query.turned and best_score(found) < SURE_SCORE:
            turned = yield from self._turned(plan, found)
            kept, count = yield from self._levelled(turned)
            # Patterns look like faces in some of the turns, but seldom like sure ones.
            if best_score(kept) >= SURE_SCORE:
                return self._crop(kept, count)
        kept, count = yield from self._levelled(found)
        return self._crop(kept, count)

    def _search(self, plan: SearchPlan) -> Generator[SearchPlan, Detections, Detections]:
        """The faces that are found, in px of the photo."""
        found = yield plan
        _check(found)
        with self._timings.stage("detect"):
            found = plan.in_photo(found)
            smaller = plan.for_large_faces()
        if smaller is None:
            return found
        large = yield smaller
        _check(large)
        with self._timings.stage("detect"):
            return joined(found, smaller.in_photo(large), LARGE_PX * plan.scale)

    def _turned(self, plan: SearchPlan, upright: Detections) -> Generator[SearchPlan, Detections, Detections]:
        """The faces of the turned photo; none if no turn has a better face than the photo as it is."""
        best, turn = best_score(upright), 0
        found = faces = NOTHING
        with self._timings.stage("detect"):
            smaller = plan.smaller()
        for quarters in QUARTERS:
            with self._timings.stage("detect"):
                turned = smaller.turned(quarters)
            found = yield from self._search(turned)
            if best_score(found) > best:
                best, turn, faces = best_score(found), quarters, found
            if best >= SURE_SCORE:
                break
        if turn and smaller is not plan:
            with self._timings.stage("detect"):
                turned = plan.turned(turn)
            faces = yield from self._search(turned)
        return faces

    def _levelled(self, found: Detections) -> Generator[SearchPlan, Detections, tuple[Detections, int]]:
        """The largest faces, with level landmarks where they were tilted, and the number of all faces."""
        with self._timings.stage("detect"):
            found = largest_first(found, self._photo.width, self._photo.height)
            kept = found[: self._query.max_faces]
        for quarters in (0, *(QUARTERS if self._query.turned else ())):
            with self._timings.stage("detect"):
                faces = unsure(kept) if quarters else tilted(kept)
                if not faces:
                    break
                tiles = Tiles.of(self._photo, kept, faces, quarters)
            seen = yield tiles.plan
            _check(seen)
            kept = tiles.level(kept, seen)
        return kept, len(found.boxes)

    def _plan(self) -> SearchPlan | None:
        """What the detector searches first; None if the image is too narrow."""
        min_px = self._query.min_face_px
        self._decode(lambda width, height: shrinkage(width, height, min_px))
        with self._timings.stage("decode"):
            if too_narrow(self._photo.width, self._photo.height, min_px):
                return None
            return search(self._photo, min_px)

    def _crop(self, kept: Detections, faces_found: int) -> Crops:
        """Cut the faces out of the photo."""
        # The crop is about as wide as the box is high. A photo with fewer pixels there would blur the crop.
        tolerable = tolerable_shrinkage(kept, self._spec.size)
        if self._photo.scale > tolerable:
            self._decode(lambda *_: tolerable)
        with self._timings.stage("align"):
            photo = self._photo
            landmarks = kept.scaled(1 / photo.scale).landmarks
            faces = align_faces(photo.pixels, landmarks, self._spec.crop, self._spec.size)
            quality = measure(faces, kept.boxes, kept.landmarks)
            return Crops(photo.width, photo.height, faces_found, kept, kept.boxes, faces, quality)

    def _decode(self, shrinkage: Callable[[int, int], int] | None) -> None:
        with self._timings.stage("decode"):
            if isinstance(self._image, bytes):
                self._photo = decode(self._image, pixel_limit=self._pixel_limit, shrinkage=shrinkage)
            else:
                height, width = self._image.shape[:2]
                check_size(width, height, self._pixel_limit)
                self._photo = Photo(self._image, width, height, 1)


def _check(found: Detections) -> None:
    """Wrong shapes and values must not become wrong answers."""
    count = len(found.boxes)
    shapes = found.boxes.shape, found.scores.shape, found.landmarks.shape
    if shapes != ((count, 4), (count,), (count, 5, 2)):
        raise EngineContractError("boxes {}, scores {}, landmarks {}".format(*shapes))
    if not all(np.isfinite(part).all() for part in (found.boxes, found.scores, found.landmarks)):
        raise EngineContractError("boxes, scores or landmarks are not finite")
