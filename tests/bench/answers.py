"""The answers of two checkouts to the same photos: each face that they find or classify differently."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.checkout import Checkout, Served
from tests.bench.figures import Remark, Row, summary
from tests.bench.load import callers, post
from tests.unit.training.scenes import overlap

MIN_OVERLAP = 0.5  # of two boxes of the same face
BOX_TOLERANCE_PX, PROBABILITY_TOLERANCE = 1.0, 0.01

Face = Mapping[str, Any]  # as in the JSON of an answer


@dataclass(frozen=True)
class Pair:
    """The same face in both answers."""

    this: Face
    other: Face

    @property
    def box_difference_px(self) -> float:
        """The largest distance between the same sides of the two boxes."""
        return float(np.abs(_corners([self.this]) - _corners([self.other])).max())

    @property
    def probability_difference(self) -> float:
        """The largest difference between the two probabilities of an emotion."""
        this, other = self.this["probabilities"], self.other["probabilities"]
        return float(max(abs(this[emotion] - other[emotion]) for emotion in this))

    @property
    def differences(self) -> dict[str, str]:
        """A description of each difference, by kind."""
        found = {
            kind: f"{kind} {self.this[kind]}, other {self.other[kind]}"
            for kind in ("emotion", "verdict")
            if self.this[kind] != self.other[kind]
        }
        if self.box_difference_px > BOX_TOLERANCE_PX:
            found["box"] = f"box off by {self.box_difference_px:.1f} px"
        if self.probability_difference > PROBABILITY_TOLERANCE:
            found["probabilities"] = f"a probability off by {self.probability_difference:.3f}"
        return found


def paired(this: Sequence[Face], other: Sequence[Face]) -> tuple[list[Pair], list[Face], list[Face]]:
    """Pairs of the same face, best overlap first; faces of `this` alone; faces of `other` alone."""
    this_faces, other_faces = list(this), list(other)
    pairs: list[Pair] = []
    while this_faces and other_faces:
        overlaps = overlap(_corners(this_faces), _corners(other_faces))
        row, column = divmod(int(overlaps.argmax()), len(other_faces))
        if overlaps[row, column] < MIN_OVERLAP:
            break
        pairs.append(Pair(this_faces.pop(row), other_faces.pop(column)))
    return pairs, this_faces, other_faces


def _corners(faces: Sequence[Face]) -> NDArray[np.float32]:
    boxes = [face["box"] for face in faces]
    return np.array(
        [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in boxes], np.float32
    )


def answers(this: Checkout, other: Checkout, photos: Mapping[str, bytes]) -> Iterator[Row]:
    """A row for each difference, then the size of the differences and their number by kind."""
    yield Remark(this.name, str(this))
    yield Remark(other.name, str(other))
    pairs: list[Pair] = []
    kinds: Counter[str] = Counter()
    refused = 0
    with this.serving() as this_gateway, other.serving() as other_gateway:
        for name, photo in photos.items():
            this_faces, this_problem = _faces_and_problem(this_gateway, photo)
            other_faces, other_problem = _faces_and_problem(other_gateway, photo)
            if this_problem != other_problem:
                kinds["problem"] += 1
                yield Remark(name, f"{this_problem or 'answered'}, other {other_problem or 'answered'}")
                continue
            refused += bool(this_problem)
            pairs_of_photo, *unpaired = paired(this_faces, other_faces)
            pairs += pairs_of_photo
            for side, faces in zip(("this", "other"), unpaired, strict=True):
                kinds[f"found by {side} alone"] += len(faces)
                for face in faces:
                    confidence = face["detection_confidence"]
                    yield Remark(
                        _place(name, face), f"found by {side} alone with confidence {confidence:.3f}"
                    )
            for pair in pairs_of_photo:
                kinds.update(pair.differences.keys())
                if pair.differences:
                    yield Remark(_place(name, pair.this), "; ".join(pair.differences.values()))
    if pairs:
        yield summary("box, difference of a face", "px", [pair.box_difference_px for pair in pairs])
        yield summary(
            "probability, largest difference of a face",
            "%",
            [100 * pair.probability_difference for pair in pairs],
        )
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()) if count)
    total = f"{len(pairs)} faces found by both in {len(photos)} photos, {refused} photos refused by both"
    yield Remark(total, counts or "no differences")


def _faces_and_problem(served: Served, photo: bytes) -> tuple[list[Face], str]:
    """The faces in the answer, and the code of its problem; empty if the answer has none."""
    load = callers(1, [post(f"{served.url}/v1/emotions", photo)])
    (answer,) = load.answers + load.failures
    if not answer.body:
        return [], answer.error
    content = json.loads(answer.body)
    return content.get("faces", []), content.get("code", "")


def _place(name: str, face: Face) -> str:
    box = face["box"]
    return f"{name}, {box['width']:.0f} px wide at {box['x']:.0f}, {box['y']:.0f}"
