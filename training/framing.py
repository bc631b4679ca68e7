"""Where eyes and mouth lie in FER-2013's images, and what the gateway's crop makes of those images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from service.manifest import Crop
from service.vision.align import align_faces

UPSCALE = 4
MARGIN = 0.25  # MTCNN wants to see some surroundings of a face
SMALLEST_FACE = 0.4  # of the image's side; FER-2013's images show one face each
CONFIDENCE = 0.99


def measure_crop(images: NDArray[np.uint8], detector: Path, *, samples: int = 2000, seed: int = 0) -> Crop:
    """Median eyes and mouth that the detector finds in FER images, as fractions of the image's side.

    images: uint8 [N,S,S] grey. Images without exactly one sure face are passed over.
    """
    chosen = np.random.default_rng(seed).permutation(len(images))[:samples]
    points = detect_landmarks(images[chosen], detector) / images.shape[1]
    left_eye, right_eye, _, mouth_left, mouth_right = np.nanmedian(points, axis=0)
    # Faces are as often turned to one side as to the other; the rest of the asymmetry is noise.
    eye_y = float(left_eye[1] + right_eye[1]) / 2
    half = float(right_eye[0] - left_eye[0]) / 2
    return Crop(
        left_eye=(round(0.5 - half, 4), round(eye_y, 4)),
        right_eye=(round(0.5 + half, 4), round(eye_y, 4)),
        mouth=(0.5, round(float(mouth_left[1] + mouth_right[1]) / 2, 4)),
    )


def realign(
    images: NDArray[np.uint8], detector: Path, crop: Crop
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """FER images cut as the gateway cuts photos: (uint8 [M,S,S] grey, bool [N] which have a sure face)."""
    landmarks = detect_landmarks(images, detector)
    found = ~np.isnan(landmarks[:, 0, 0])
    size = images.shape[1]
    faces = [
        align_faces(_rgb(image), points[None], crop, size)[0, 0]
        for image, points in zip(images[found], landmarks[found], strict=True)
    ]
    return np.array(faces, np.uint8).reshape(-1, size, size), found


def detect_landmarks(images: NDArray[np.uint8], detector: Path) -> NDArray[np.float32]:
    """Five landmarks in px per image, NaN without exactly one sure face: uint8 [N,S,S] -> float32 [N,5,2]."""
    module = torch.jit.load(str(detector))  # type: ignore[no-untyped-call]
    side = images.shape[1] * UPSCALE
    margin = round(MARGIN * side)
    answer = np.full((len(images), 5, 2), np.nan, np.float32)
    for points, image in zip(answer, images, strict=True):
        enlarged = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        scene = np.pad(np.asarray(enlarged), margin, mode="edge")
        with torch.inference_mode():
            _, scores, landmarks = module(
                torch.from_numpy(_rgb(scene)),
                torch.tensor([side * SMALLEST_FACE]),
                torch.tensor([CONFIDENCE]),
            )
        if len(scores) == 1:
            points[:] = (landmarks[0].numpy() - margin) / UPSCALE
    return answer


def _rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)
