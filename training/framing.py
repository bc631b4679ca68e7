"""Finds eyes and mouth in a data set's pictures, and crops the pictures as the gateway does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.core.manifest import Crop, Input, read_manifest
from service.core.query import Query
from service.core.timings import Timings
from service.inference.onnx import OnnxDetector
from service.pipeline.crops import Cropper, Crops
from service.settings import Settings
from service.vision.decode import decode
from service.vision.level import is_tilted
from training.datasets.faces import Pictures

# Pictures are enlarged to this side, get a margin, and are searched at half the size. YuNet places mouths too
# low in faces under 45 px or over 180 px, and most faces in photos have sizes between.
DETECTION_PX = 192
MARGIN = 0.25
SAMPLES = 2000
# Landmarks do not depend on the geometry of the crop.
ANY_CROP = Crop(left_eye=(0.3, 0.4), right_eye=(0.7, 0.4), mouth=(0.5, 0.75))


class PhotoCropper:
    """Crops the faces of photos with the gateway's own code, in any thread. Raises `ModelFileError`.

    The default options of a request apply: photos are also searched turned, and tilted faces are levelled.
    """

    def __init__(self, repository: Path) -> None:
        settings = Settings()
        self.detector = read_manifest(repository, settings.detector)
        self._pixel_limit = settings.pixel_limit
        self._engine = OnnxDetector(repository, self.detector, spare_core=lambda: False)
        asyncio.run(self._engine.warm_up())

    def crop(self, photo: bytes | NDArray[np.uint8], spec: Input) -> Crops:
        """The faces of an encoded photo, or of pixels, uint8 [H,W,3] RGB. Raises `ServiceError`.

        spec: side and geometry of the crops.
        """
        query = Query()
        steps = Cropper(photo, query, spec, self._pixel_limit, Timings()).steps()
        try:
            plan = next(steps)
            while True:
                found = self._engine.find(plan.image, plan.min_face_px, query.min_detection_confidence)
                plan = steps.send(found)
        except StopIteration as end:
            crops: Crops = end.value
            return crops

    def crop_close_up(self, photo: bytes | NDArray[np.uint8], spec: Input) -> tuple[Crops, int]:
        """As `crop`, with a margin: the detector misses faces that fill their photo. Raises `ServiceError`.

        Also returns how many times the crops' px are enlarged.
        """
        pixels = decode(photo, pixel_limit=self._pixel_limit).pixels if isinstance(photo, bytes) else photo
        return self.crop(scene(pixels), spec), upscale(min(pixels.shape[:2]))


def crop_each(pictures: Pictures, cropper: PhotoCropper, spec: Input) -> list[Crops | None]:
    """Crop N pictures as the gateway crops photos. None stands for pictures without exactly one face."""
    images = pictures.read(np.arange(len(pictures)), size=spec.size, channels=3).transpose(0, 2, 3, 1)
    found = (cropper.crop_close_up(image, spec)[0] for image in images)
    return [crops if len(crops.boxes) == 1 else None for crops in found]


def cut_out(crops: Iterable[Crops | None], size: int) -> NDArray[np.uint8]:
    """The faces that `crop_each` found, without gaps: [n,3,size,size]."""
    faces = [each.faces[0] for each in crops if each is not None]
    return np.array(faces, np.uint8).reshape(-1, 3, size, size)


def measure_crop(pictures: Pictures, cropper: PhotoCropper, *, size: int) -> Crop:
    """Median position of eyes and mouth in pictures of `size` px, as fractions of their side.

    Pictures without exactly one level face are skipped. Raises `ValueError` when no picture remains.
    """
    chosen = np.random.default_rng(0).permutation(len(pictures))[:SAMPLES]
    found = crop_each(pictures.choose(chosen), cropper, Input(size=size, crop=ANY_CROP))
    # The landmarks of a levelled face are those of a small copy, where mouths are found lower.
    level = [crops for crops in found if crops and not is_tilted(crops.quality[0].roll_degrees)]
    points = np.array([_in_picture(crops, size) for crops in level])
    if not len(points):
        raise ValueError(f"the detector finds no face in {len(chosen)} of the data set's pictures")
    left_eye, right_eye, _, left_mouth, right_mouth = np.median(points, axis=0)
    # Faces turn to both sides equally often, so the remaining asymmetry is noise.
    eye_y = float(left_eye[1] + right_eye[1]) / 2
    half = float(right_eye[0] - left_eye[0]) / 2
    return Crop(
        left_eye=(round(0.5 - half, 4), round(eye_y, 4)),
        right_eye=(round(0.5 + half, 4), round(eye_y, 4)),
        mouth=(0.5, round(float(left_mouth[1] + right_mouth[1]) / 2, 4)),
    )


def _in_picture(crops: Crops, size: int) -> NDArray[np.float32]:
    """The landmarks of a close-up's face, as fractions of the side of its picture: float32 [5,2]."""
    assert crops.detections is not None
    points: NDArray[np.float32] = crops.detections.landmarks[0] / (size * upscale(size)) - MARGIN
    return points


def scene(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge a picture [H,W,3] for the detector, and add a margin that repeats its edge."""
    height, width = image.shape[:2]
    factor = upscale(min(height, width))
    margin = round(MARGIN * min(height, width) * factor)
    size = width * factor, height * factor
    enlarged = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return np.pad(enlarged, ((margin, margin), (margin, margin), (0, 0)), mode="edge")


def upscale(side: int) -> int:
    """How many times `scene` enlarges a picture whose shorter side has `side` px."""
    return max(1, DETECTION_PX // side)
