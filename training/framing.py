"""How FER-2013 frames a face, measured: where the eyes and the mouth lie in its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from service.manifest import Crop

UPSCALE = 4
MARGIN = 0.25  # MTCNN wants to see some surroundings of a face


def measure_crop(images: NDArray[np.uint8], detector: Path, *, samples: int = 2000, seed: int = 0) -> Crop:
    """Median eyes and mouth that the detector finds in FER images, as fractions of the image's side.

    images: uint8 [N,S,S] grey. Images in which no face scores 0.99 are passed over.
    """
    module = torch.jit.load(str(detector))  # type: ignore[no-untyped-call]
    chosen = np.random.default_rng(seed).permutation(len(images))[:samples]
    points = []
    for image in images[chosen]:
        side = image.shape[0]
        margin = round(MARGIN * side * UPSCALE)
        enlarged = np.asarray(
            Image.fromarray(image).resize((side * UPSCALE, side * UPSCALE), Image.Resampling.BICUBIC)
        )
        framed = np.pad(enlarged, margin, mode="edge")
        with torch.inference_mode():
            _, scores, landmarks = module(
                torch.from_numpy(np.repeat(framed[:, :, None], 3, axis=2)),
                torch.tensor([side * UPSCALE * 0.4]),
                torch.tensor([0.99]),
            )
        if len(scores) == 1:
            points.append((landmarks[0].numpy() - margin) / (side * UPSCALE))
    left_eye, right_eye, _, mouth_left, mouth_right = np.median(points, axis=0)
    mouth = (mouth_left + mouth_right) / 2
    # Faces are as often turned to one side as to the other; the rest of the asymmetry is noise.
    eye_y = float(left_eye[1] + right_eye[1]) / 2
    half = float(right_eye[0] - left_eye[0]) / 2
    return Crop(
        left_eye=(round(0.5 - half, 4), round(eye_y, 4)),
        right_eye=(round(0.5 + half, 4), round(eye_y, 4)),
        mouth=(0.5, round(float(mouth[1]), 4)),
    )
