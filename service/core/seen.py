"""What the pipeline saw in one image, as arrays: the source of answers, tracks, metrics and audit lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from service.core.arrays import Drawing, FaceQuality
from service.core.manifest import QualityCode

Verdict = Literal["certain", "uncertain"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Reason = Literal["low_confidence", QualityCode]


class Outcome(NamedTuple):
    """What was seen of the one person of an image. emotion: None without a face, or if it is unreadable."""

    face: bool
    emotion: str | None = None
    certain: bool = False


NO_FACE = Outcome(face=False)


@dataclass(frozen=True)
class Seen:
    """The N faces of one image, largest first. `width`, `height` and `boxes` are px of the image.

    faces_found: faces in the image; at most `Query.max_faces` of these faces are kept.
    boxes: float32 [N,4] xyxy. scores: float32 [N]; landmarks: float32 [N,5,2]; None without detection.
    labels: C names. probabilities: float32 [N,C], with the prior of the query. agreement: float32 [N], the
    probability of each face's emotion without it. gates: float32 [N,2,4], the weight of each expert.
    reasons: why each face is uncertain, empty if it is certain. drawings: heatmaps of the first faces.
    """

    width: int
    height: int
    faces_found: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    landmarks: NDArray[np.float32] | None
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    agreement: NDArray[np.float32]
    gates: NDArray[np.float32]
    quality: list[FaceQuality]
    reasons: list[list[Reason]]
    drawings: list[Drawing]

    @property
    def face_count(self) -> int:
        return len(self.boxes)

    @property
    def verdicts(self) -> Mapping[Verdict, int]:
        """How many faces have each verdict."""
        uncertain = sum(map(bool, self.reasons))
        return {"certain": self.face_count - uncertain, "uncertain": uncertain}

    @cached_property
    def emotions(self) -> list[str]:
        """The most likely emotion of each face."""
        return [self.labels[best] for best in self.probabilities.argmax(axis=1).tolist()]

    @cached_property
    def confidences(self) -> list[float]:
        """The probability of each face's emotion."""
        return [max(row) for row in self.probabilities.tolist()]

    def verdict(self, face: int) -> Verdict:
        return "uncertain" if self.reasons[face] else "certain"

    @property
    def outcome(self) -> Outcome:
        """What was seen of the largest face."""
        if not self.face_count:
            return NO_FACE
        reasons = self.reasons[0]
        if set(reasons) - {"low_confidence"}:
            return Outcome(face=True)
        return Outcome(True, self.emotions[0], certain=not reasons)


@dataclass(frozen=True, slots=True)
class SeenGroup:
    """All faces of one image, or before one camera, together.

    probabilities: float64 [C], the mean over the faces, in coarse steps. With fewer than `min_faces` faces,
    `face_count` is 0 and `probabilities` is None. outcome: of the largest face, for the counts of a session;
    no answer, metric or line has it.
    """

    width: int
    height: int
    min_faces: int
    labels: tuple[str, ...]
    face_count: int = 0
    probabilities: NDArray[np.float64] | None = None
    outcome: Outcome = NO_FACE

    @property
    def verdicts(self) -> Mapping[Verdict, int]:
        """Empty: a group has no verdict."""
        return {}
