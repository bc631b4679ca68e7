"""Finds eyes and mouth in a data set's pictures, and crops the pictures as the gateway does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from service.core.manifest import TORCHSCRIPT, Crop, Input, read_manifest, verified_model_path
from service.core.query import Query
from service.core.timings import Timings
from service.inference.onnx import OnnxDetector
from service.pipeline.crops import Cropper, Crops
from service.settings import Settings
from service.vision.align import align_faces
from service.vision.decode import decode
from training.datasets.faces import Pictures, PixelPictures

# Pictures are enlarged to this side, get a margin, and are searched at half the size. YuNet places mouths too
# low in faces under 45 px or over 180 px, and most faces in photos have sizes between.
DETECTION_PX = 192
MARGIN = 0.25
MIN_FACE_PX = 32.0
CONFIDENCE = 0.9


class FaceDetector:
    """The default detector, for one picture at a time. Raises `ModelFileError`."""

    def __init__(self, repository: Path) -> None:
        manifest = read_manifest(repository, Settings().detector)
        path = verified_model_path(repository, manifest, TORCHSCRIPT)
        self._module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def landmarks(
        self, image: NDArray[np.uint8], min_face_px: float, confidence: float
    ) -> NDArray[np.float32]:
        """uint8 [H,W,3] RGB -> float32 [N,5,2] in pixels, the most confident face first."""
        return self.faces(image, min_face_px, confidence)[1]

    def faces(
        self, image: NDArray[np.uint8], min_face_px: float = MIN_FACE_PX, confidence: float = CONFIDENCE
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """uint8 [H,W,3] RGB -> boxes float32 [N,4] xyxy and landmarks [N,5,2] in px, most confident first."""
        with torch.inference_mode():
            boxes, scores, landmarks = self._module(
                torch.from_numpy(np.ascontiguousarray(image)),
                torch.tensor([min_face_px]),
                torch.tensor([confidence]),
            )
        order = scores.argsort(descending=True)
        return boxes[order].numpy(), landmarks[order].numpy()


class PhotoCropper:
    """Crops the faces of photos with the gateway's own code, in any thread. Raises `ModelFileError`.

    The default options of a request apply: photos are also searched turned, and tilted faces are levelled.
    spec: side and geometry of the crops.
    """

    def __init__(self, repository: Path, spec: Input) -> None:
        settings = Settings()
        self.detector = read_manifest(repository, settings.detector)
        self._spec = spec
        self._pixel_limit = settings.pixel_limit
        self._engine = OnnxDetector(repository, self.detector, spare_core=lambda: False)
        asyncio.run(self._engine.warm_up())

    def crop(self, photo: bytes | NDArray[np.uint8]) -> Crops:
        """The faces of an encoded photo, or of pixels, uint8 [H,W,3] RGB. Raises `ServiceError`."""
        query = Query()
        steps = Cropper(photo, query, self._spec, self._pixel_limit, Timings()).steps()
        try:
            plan = next(steps)
            while True:
                found = self._engine.find(plan.image, plan.min_face_px, query.min_detection_confidence)
                plan = steps.send(found)
        except StopIteration as end:
            crops: Crops = end.value
            return crops

    def crop_close_up(self, photo: bytes | NDArray[np.uint8]) -> tuple[Crops, int]:
        """As `crop`, with a margin: the detector misses faces that fill their photo. Raises `ServiceError`.

        Also returns how many times the crops' px are enlarged.
        """
        pixels = decode(photo, pixel_limit=self._pixel_limit).pixels if isinstance(photo, bytes) else photo
        return self.crop(scene(pixels)), _upscale(min(pixels.shape[:2]))


def measure_crop(
    pictures: Pictures, detector: FaceDetector, *, size: int, samples: int = 2000, seed: int = 0
) -> Crop:
    """Median position of eyes and mouth in pictures of `size` px, as fractions of their side.

    Pictures without exactly one sure face are skipped. Raises `ValueError` when no picture remains.
    """
    chosen = np.random.default_rng(seed).permutation(len(pictures))[:samples]
    points = detect_landmarks(_rgb(pictures, chosen, size), detector) / size
    if np.isnan(points).all():
        raise ValueError(f"the detector finds no face in {len(chosen)} of the data set's pictures")
    left_eye, right_eye, _, left_mouth, right_mouth = np.nanmedian(points, axis=0)
    # Faces turn to both sides equally often, so the remaining asymmetry is noise.
    eye_y = float(left_eye[1] + right_eye[1]) / 2
    half = float(right_eye[0] - left_eye[0]) / 2
    return Crop(
        left_eye=(round(0.5 - half, 4), round(eye_y, 4)),
        right_eye=(round(0.5 + half, 4), round(eye_y, 4)),
        mouth=(0.5, round(float(left_mouth[1] + right_mouth[1]) / 2, 4)),
    )


def realign(
    pictures: Pictures, detector: FaceDetector, crop: Crop, *, size: int
) -> tuple[PixelPictures, NDArray[np.bool_]]:
    """Crop N pictures of `size` px as the gateway crops photos.

    Returns the crops of the pictures with exactly one sure face, in RGB, and a mask bool [N] of them.
    """
    images = _rgb(pictures, np.arange(len(pictures)), size)
    landmarks = detect_landmarks(images, detector)
    found = ~np.isnan(landmarks[:, 0, 0])
    faces = [
        align_faces(image, points[None], crop, size)[0].transpose(1, 2, 0)
        for image, points in zip(images[found], landmarks[found], strict=True)
    ]
    return PixelPictures(np.array(faces, np.uint8).reshape(-1, size, size, 3)), found


def detect_landmarks(images: NDArray[np.uint8], detector: FaceDetector) -> NDArray[np.float32]:
    """Landmarks in px, NaN unless an image has exactly one sure face: [N,S,S,3] RGB -> float32 [N,5,2]."""
    factor = _upscale(images.shape[1])
    margin = round(MARGIN * images.shape[1] * factor)
    answer = np.full((len(images), 5, 2), np.nan, np.float32)
    for points, image in zip(answer, images, strict=True):
        found = detector.landmarks(scene(image), MIN_FACE_PX, CONFIDENCE)
        if len(found) == 1:
            points[:] = (found[0] - margin) / factor
    return answer


def scene(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge a picture [H,W,3] for the detector, and add a margin that repeats its edge."""
    height, width = image.shape[:2]
    factor = _upscale(min(height, width))
    margin = round(MARGIN * min(height, width) * factor)
    size = width * factor, height * factor
    enlarged = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return np.pad(enlarged, ((margin, margin), (margin, margin), (0, 0)), mode="edge")


def _upscale(side: int) -> int:
    """How many times `scene` enlarges a picture whose shorter side has `side` px."""
    return max(1, DETECTION_PX // side)


def _rgb(pictures: Pictures, rows: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    return pictures.read(rows, size=size, channels=3).transpose(0, 2, 3, 1)
