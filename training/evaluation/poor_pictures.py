"""Answers of a served model for poor pictures: faces that are corrupted, and pictures without a face."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.core.manifest import Input, Prior, QualityMeasure
from service.core.priors import BALANCED
from service.pipeline.crops import Crops
from service.vision.quality import measure_light
from training.calibrate import with_prior
from training.datasets.faces import Bools, Bytes, Ints, LabelledFaces
from training.evaluation.corruptions import (
    Corruption,
    blur,
    darken,
    fade,
    gamma,
    grain,
    jpeg,
    noise,
    overexpose,
    shake,
    shift,
    shrink,
    turn,
    zoom,
)
from training.evaluation.metrics import plurality_right
from training.evaluation.predict import Floats
from training.framing import cut_out, upscale
from training.not_faces import NOT_FACES, NotFace
from training.occluders import occlude

BATCH = 256
SHIFTED_FACES = 1500
CORRUPTED_FACES = 600
"""Faces that each corruption is applied to, always the same. More faces take an hour instead of minutes."""

FOUND, CLEAN, NOT_FACE = "found", "clean", "not_face"
# The name of a corruption is the code of the limit that it helps to choose.
CORRUPTIONS = (
    Corruption("too_small", shrink, (32, 28, 24, 20, 16, 12, 8)),
    Corruption("blurred", blur, (0.012, 0.02, 0.03, 0.04, 0.05, 0.06)),
    Corruption("blurred", shake, (0.15, 0.27)),
    Corruption("too_dark", darken, (0.35, 0.17, 0.08, 0.06, 0.04)),
    Corruption("too_bright", overexpose, (1.4, 2, 3, 4, 5)),
    Corruption("low_contrast", fade, (0.35, 0.17, 0.08, 0.06, 0.04)),
    Corruption("occluded", occlude, (0.1, 0.2, 0.3, 0.4)),
)

# Other cameras, light, compression and crops. They choose nothing.
SHIFTS = (
    Corruption("zoom", zoom, (0.85, 1.15)),
    Corruption("shift", shift, (0.06,)),
    Corruption("rotation", turn, (10, 20)),
    Corruption("low resolution", shrink, (24, 16)),
    Corruption("blur", blur, (0.02,)),
    Corruption("motion blur", shake, (0.1,)),
    Corruption("noise", noise, (0.05, 0.1)),
    Corruption("film grain", grain, (0.1,)),
    Corruption("JPEG", jpeg, (30, 10)),
    Corruption("darkness", darken, (0.25, 0.12)),
    Corruption("too much light", overexpose, (2,)),
    Corruption("haze", fade, (0.35,)),
    Corruption("tone curve", gamma, (0.5, 2)),
    Corruption("covered", occlude, (0.2,)),
)

Classifier = Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Answers:
    """Answers for N pictures.

    kind: `FOUND`, a face as the gateway crops it; `CLEAN`, as the data set has it; `NOT_FACE`; or the name of
    a corruption. measured: float32 [N] by measure, NaN if unknown. right: by `plurality_right`.
    """

    kind: NDArray[np.str_]
    measured: dict[QualityMeasure, Floats]
    right: Bools
    confidence: Floats

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        return cls(
            np.concatenate([part.kind for part in parts]),
            {name: np.concatenate([part.measured[name] for part in parts]) for name in MEASURES},
            np.concatenate([part.right for part in parts]),
            np.concatenate([part.confidence for part in parts]),
        )

    def choose(self, rows: Bools) -> Answers:
        measured = {name: values[rows] for name, values in self.measured.items()}
        return Answers(self.kind[rows], measured, self.right[rows], self.confidence[rows])

    def of(self, *kinds: str) -> Answers:
        return self.choose(np.isin(self.kind, kinds))


MEASURES: tuple[QualityMeasure, ...] = get_args(QualityMeasure)


class Probe:
    """A served model with the prior `balanced`, and faces with votes to measure it on.

    crops: of each face, as `crop_each` finds them.
    """

    def __init__(
        self,
        classifier: Classifier,
        spec: Input,
        prior: Prior,
        faces: LabelledFaces,
        crops: Sequence[Crops | None],
    ) -> None:
        self._classifier, self._size, self._prior = classifier, spec.size, prior
        votes = faces.all_votes
        labelled = np.flatnonzero(votes.sum(axis=1) > 0)
        found = [
            (row, each)
            for row in labelled.tolist()
            if (each := crops[row]) and each.quality[0].yaw is not None
        ]
        self._crops = [each for _, each in found]
        self._crop_votes = votes[[row for row, _ in found]]
        # Shorter side of a box as a share of its picture's side.
        sides = [each.quality[0].size_px for each in self._crops] or [1.0]
        self._box_share = float(np.median(sides)) / (upscale(self._size) * self._size) if found else 1.0
        order = np.random.default_rng(0).permutation(len(labelled))[:SHIFTED_FACES]
        self._votes = votes[labelled[order]]
        pixels = faces.pictures.read(labelled[order], size=self._size, channels=1)
        self._images = torch.from_numpy(pixels).float() / 255

    def everything(self) -> Answers:
        """Answers for all pictures: found, clean, corrupted at every strength, and not faces."""
        corrupted = [self.corrupted(each, strength) for each in CORRUPTIONS for strength in each.strengths]
        others = [self.not_faces(kind) for kind in NOT_FACES.values()]
        return Answers.joined([self.found(), self.clean(), *corrupted, *others])

    def shifted(self, shift: Corruption, strength: float) -> Answers:
        """Answers under one shift. Names of shifts are no codes of limits."""
        return self._changed(
            shift.name,
            lambda images: shift.apply(images, strength),
            self._side(shift, strength),
            SHIFTED_FACES,
        )

    def found(self) -> Answers:
        """The faces that the gateway finds and crops."""
        poses = np.array([(each.quality[0].yaw, each.quality[0].pitch) for each in self._crops], np.float32)
        yaw, pitch = poses.reshape(-1, 2).T
        return self._answers(
            FOUND, cut_out(self._crops, self._size), self._crop_votes, {"yaw": yaw, "pitch": pitch}
        )

    def clean(self) -> Answers:
        return self._changed(CLEAN, lambda images: images, self._size)

    def corrupted(self, corruption: Corruption, strength: float) -> Answers:
        side = self._side(corruption, strength)
        return self._changed(corruption.name, lambda images: corruption.apply(images, strength), side)

    def _side(self, corruption: Corruption, strength: float) -> float:
        return strength if corruption.apply is shrink else self._size

    def not_faces(self, kind: NotFace) -> Answers:
        """Pictures that are not upright faces, made from the faces. Every answer counts as wrong."""
        return self._changed(NOT_FACE, kind, math.nan)

    def _changed(self, kind: str, change: NotFace, side: float, count: int = CORRUPTED_FACES) -> Answers:
        """side: of the faces in px. count: the first faces are changed."""
        torch.manual_seed(0)
        images = torch.cat([change(part) for part in torch.split(self._images[:count], BATCH)])
        faces = (images * 255).round().clamp(0, 255).byte().repeat(1, 3, 1, 1).numpy()
        size_px = np.full(len(faces), self._box_share * side, np.float32)
        return self._answers(kind, faces, self._votes[:count], {"size_px": size_px})

    def _answers(
        self, kind: str, faces: Bytes, votes: Ints, measured: dict[QualityMeasure, Floats]
    ) -> Answers:
        with torch.inference_mode():
            parts = [self._classifier(part) for part in torch.split(torch.from_numpy(faces), BATCH)]
        probabilities, _, occlusion, likeness = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        probabilities = with_prior(probabilities, self._prior, BALANCED)
        sharpness, brightness, contrast = measure_light(faces).T
        right = plurality_right(probabilities, votes) & (kind != NOT_FACE)
        unknown = {name: np.full(len(faces), np.nan, np.float32) for name in MEASURES}
        known: dict[QualityMeasure, Floats] = {
            "sharpness": sharpness,
            "brightness": brightness,
            "contrast": contrast,
            "occlusion": occlusion[:, 0],
            "face_likeness": likeness[:, 0],
        }
        return Answers(
            np.full(len(faces), kind), unknown | known | measured, right, probabilities.max(axis=1)
        )
