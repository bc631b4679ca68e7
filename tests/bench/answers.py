"""What two checkouts answer about the same photos: each face that they find or judge differently."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.checkout import Checkout, Served
from tests.bench.figures import Remark, Row, spread
from tests.bench.load import callers, post
from tests.unit.training.scenes import overlap

SAME_FACE = 0.5  # overlap of its boxes
BOX_TOLERANCE_PX, PROBABILITY_TOLERANCE = 1.0, 0.01

Face = Mapping[str, Any]  # of the answer's JSON


@dataclass(frozen=True)
class Pair:
    """One face in both answers."""

    this: Face
    other: Face

    @property
    def box_px(self) -> float:
        """How far the most different side of the box is away."""
        return float(np.abs(_corners([self.this]) - _corners([self.other])).max())

    @property
    def probability(self) -> float:
        """The largest difference of a probability."""
        mine, theirs = self.this["probabilities"], self.other["probabilities"]
        return float(max(abs(mine[emotion] - theirs[emotion]) for emotion in mine))

    @property
    def differences(self) -> dict[str, str]:
        """What differs, by kind."""
        found = {
            kind: f"{kind} {self.this[kind]}, other {self.other[kind]}"
            for kind in ("emotion", "verdict")
            if self.this[kind] != self.other[kind]
        }
        if self.box_px > BOX_TOLERANCE_PX:
            found["box"] = f"box off by {self.box_px:.1f} px"
        if self.probability > PROBABILITY_TOLERANCE:
            found["probabilities"] = f"a probability off by {self.probability:.3f}"
        return found


def paired(this: Sequence[Face], other: Sequence[Face]) -> tuple[list[Pair], list[Face], list[Face]]:
    """Faces of both answers, best overlap first; those of this one alone; those of the other one alone."""
    mine, theirs = list(this), list(other)
    pairs: list[Pair] = []
    while mine and theirs:
        shared = overlap(_corners(mine), _corners(theirs))
        row, column = divmod(int(shared.argmax()), len(theirs))
        if shared[row, column] < SAME_FACE:
            break
        pairs.append(Pair(mine.pop(row), theirs.pop(column)))
    return pairs, mine, theirs


def _corners(faces: Sequence[Face]) -> NDArray[np.float32]:
    boxes = [face["box"] for face in faces]
    return np.array(
        [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in boxes], np.float32
    )


def answers(this: Checkout, other: Checkout, photos: Mapping[str, bytes]) -> Iterator[Row]:
    """A row for each difference, then how large differences are and how many of each kind there are."""
    yield Remark(this.name, str(this))
    yield Remark(other.name, str(other))
    pairs: list[Pair] = []
    kinds: Counter[str] = Counter()
    refused = 0
    with this.serving() as ours, other.serving() as theirs:
        for name, photo in photos.items():
            (mine, problem), (its, its_problem) = (_answered(served, photo) for served in (ours, theirs))
            if problem != its_problem:
                kinds["problem"] += 1
                yield Remark(name, f"{problem or 'answered'}, other {its_problem or 'answered'}")
                continue
            refused += bool(problem)
            both, *alone = paired(mine, its)
            pairs += both
            for side, faces in zip(("this", "other"), alone, strict=True):
                kinds[f"found by {side} alone"] += len(faces)
                for face in faces:
                    confidence = face["detection_confidence"]
                    yield Remark(
                        _place(name, face), f"found by {side} alone with confidence {confidence:.3f}"
                    )
            for pair in both:
                kinds.update(pair.differences.keys())
                if pair.differences:
                    yield Remark(_place(name, pair.this), "; ".join(pair.differences.values()))
    if pairs:
        yield spread("box, difference of a face", "px", [pair.box_px for pair in pairs])
        yield spread(
            "probability, largest difference of a face", "%", [100 * pair.probability for pair in pairs]
        )
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()) if count)
    total = f"{len(pairs)} faces of both in {len(photos)} photos, {refused} photos refused by both"
    yield Remark(total, counts or "no differences")


def _answered(served: Served, photo: bytes) -> tuple[list[Face], str]:
    """The faces, and the code of the problem if there is one."""
    load = callers(1, [post(f"{served.url}/v1/emotions", photo)])
    (answer,) = load.answers + load.failures
    if not answer.body:
        return [], answer.error
    content = json.loads(answer.body)
    return content.get("faces", []), content.get("code", "")


def _place(name: str, face: Face) -> str:
    box = face["box"]
    return f"{name}, {box['width']:.0f} px wide at {box['x']:.0f}, {box['y']:.0f}"
