"""Faces corrupted as in poor photos, and the served model's answers for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.core.manifest import ClassifierManifest, QualityCode, QualityMeasure
from service.vision.quality import measure_light
from training.datasets.faces import LabelledFaces
from training.evaluation.robustness import blur, darken, shake, shrink
from training.framing import PhotoCropper
from training.not_faces import NotFace
from training.occluders import occlude

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]

BATCH = 256
CORRUPTED_FACES = 600
"""Faces that each corruption is applied to, always the same. More faces take an hour instead of minutes."""


@dataclass(frozen=True)
class Rows:
    """N labelled faces. measured: float32 [N] by measure; right: whether each answer was right.

    clean: those that are as the data set has them.
    """

    measured: dict[QualityMeasure, Floats]
    right: Bools
    confidence: Floats
    clean: Bools

    def join(self, other: Rows) -> Rows:
        shared = self.measured.keys() & other.measured.keys()
        return Rows(
            {name: np.concatenate([self.measured[name], other.measured[name]]) for name in shared},
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in ("right", "confidence", "clean")
            ),
        )

    def choose(self, rows: Bools) -> Rows:
        return Rows(
            {name: values[rows] for name, values in self.measured.items()},
            self.right[rows],
            self.confidence[rows],
            self.clean[rows],
        )


@dataclass(frozen=True)
class Corruption:
    """apply: (images float [N,1,S,S] in [0, 1], strength) -> the same shape."""

    code: QualityCode
    measure: QualityMeasure
    strengths: tuple[float, ...]
    apply: Callable[[Tensor, float], Tensor]


def overexpose(images: Tensor, light: float) -> Tensor:
    """More light than a sensor can record, in 256 steps of grey as in a file."""
    return ((images * light).clamp(0, 1) * 255).round() / 255


def fade(images: Tensor, share: float) -> Tensor:
    """Haze or glare: all pixels move towards the face's mean; sensor noise is added."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    faded = mean + (images - mean) * share + 0.01 * torch.randn_like(images)
    return (faded.clamp(0, 1) * 255).round() / 255


CORRUPTIONS = (
    Corruption("too_small", "size_px", (32, 28, 24, 20, 16, 12, 8), shrink),
    Corruption("blurred", "sharpness", (0.012, 0.02, 0.03, 0.04, 0.05, 0.06), blur),
    Corruption("blurred", "sharpness", (0.15, 0.27), shake),
    Corruption("too_dark", "brightness", (0.35, 0.17, 0.08, 0.06, 0.04), darken),
    Corruption("too_bright", "brightness", (1.4, 2, 3, 4, 5), overexpose),
    Corruption("low_contrast", "contrast", (0.35, 0.17, 0.08, 0.06, 0.04), fade),
    Corruption("occluded", "occlusion", (0.1, 0.2, 0.3, 0.4), occlude),
)


class ServedModelProbe:
    """A served model, the gateway's crop, and labelled faces to measure both on."""

    def __init__(
        self,
        classifier: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]],
        manifest: ClassifierManifest,
        cropper: PhotoCropper,
        faces: LabelledFaces,
    ) -> None:
        self._classifier = classifier
        self._input = manifest.input
        self._emotions = len(manifest.labels)
        self._cropper = cropper
        chosen = np.flatnonzero(faces.majority >= 0)
        self._labels = faces.majority[chosen]
        self._pixels = faces.pictures.read(chosen, size=self._input.size, channels=1)
        self._sample = np.sort(np.random.default_rng(0).permutation(len(chosen))[:CORRUPTED_FACES])

    def detected_crops(self) -> tuple[Rows, float]:
        """Detect and crop the faces as the gateway does.

        Returns the rows, and the median shorter side of a box as a share of its picture's side. Pictures
        without exactly one face are skipped.
        """
        crops, poses, kept, sides = [], [], [], []
        for row, (face,) in enumerate(self._pixels):
            found, enlarged = self._cropper.crop_close_up(np.repeat(face[:, :, None], 3, axis=2), self._input)
            if len(found.boxes) != 1 or found.quality[0].yaw is None:
                continue
            crops.append(found.faces[0])
            poses.append((found.quality[0].yaw, found.quality[0].pitch))
            kept.append(row)
            sides.append(found.quality[0].size_px / (enlarged * face.shape[0]))
        faces = np.array(crops, np.uint8).reshape(-1, 3, self._input.size, self._input.size)
        answered = self._answered(faces, np.array(kept, np.int64), True)
        yaw, pitch = np.array(poses, np.float32).reshape(-1, 2).T
        measured = {**answered.measured, "yaw": yaw, "pitch": pitch}
        return replace(answered, measured=measured), float(np.median(sides)) if sides else 1.0

    def clean(self, share: float) -> Rows:
        """Faces as the data set has them; share: of the box's shorter side in sides of a face."""
        return self._rows(self._images(), share * self._input.size, True)

    def corrupted(self, corruption: Corruption, strength: float, share: float) -> Rows:
        """Faces after one corruption. share: as `detected_crops` returns it."""
        torch.manual_seed(0)
        parts = [corruption.apply(part, strength) for part in torch.split(self._images(), BATCH)]
        side = strength if corruption.apply is shrink else self._input.size
        return self._rows(torch.cat(parts), share * side, False)

    def not_faces(self, kind: NotFace) -> Rows:
        """Pictures that are not upright faces, made from the faces. Every answer counts as wrong."""
        torch.manual_seed(0)
        rows = self._rows(torch.cat([kind(part) for part in torch.split(self._images(), BATCH)]), 1, False)
        return replace(rows, right=np.zeros_like(rows.right))

    def _images(self) -> Tensor:
        return torch.from_numpy(self._pixels[self._sample]).float() / 255

    def _rows(self, images: Tensor, size_px: float, clean: bool) -> Rows:
        faces = (images * 255).round().clamp(0, 255).byte().repeat(1, 3, 1, 1).numpy()
        rows = self._answered(faces, self._sample, clean)
        rows.measured["size_px"] = np.full(len(faces), size_px, np.float32)
        return rows

    def _answered(self, faces: Bytes, rows: NDArray[np.int64], clean: bool) -> Rows:
        with torch.inference_mode():
            parts = [
                self._classifier(torch.from_numpy(faces[at : at + BATCH]))
                for at in range(0, max(len(faces), 1), BATCH)
            ]
        probabilities = np.concatenate([part[0].numpy() for part in parts])
        occlusion, likeness = (
            np.concatenate([part[hint].numpy() for part in parts])[:, 0] for hint in (2, 3)
        )
        sharpness, brightness, contrast = measure_light(faces).T
        return Rows(
            {
                "sharpness": sharpness,
                "brightness": brightness,
                "contrast": contrast,
                "occlusion": occlusion,
                "face_likeness": likeness,
            },
            probabilities.argmax(axis=1) == self._labels[rows],
            probabilities.max(axis=1),
            np.full(len(faces), clean),
        )
