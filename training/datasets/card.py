"""What is in a data set, as plain data for its card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from service.core.manifest import EMOTIONS
from training.datasets.faces import LabelledFaces


def contents(splits: Mapping[str, LabelledFaces]) -> dict[str, dict[str, Any]]:
    """Faces, distinct faces and emotions of each split."""
    return {
        "faces": {split: len(rows) for split, rows in splits.items()},
        "distinct": {split: len(np.unique(rows.group)) for split, rows in splits.items()},
        "emotions": {split: _emotions(rows) for split, rows in splits.items()},
    }


def _emotions(rows: LabelledFaces) -> dict[str, dict[str, float]]:
    """Faces per emotion by majority, and the share of all votes for it."""
    shares = rows.distributions.sum(axis=0) / max(rows.distributions.sum(), 1)
    return {
        emotion: {"faces": int((rows.majority == index).sum()), "votes": round(float(shares[index]), 4)}
        for index, emotion in enumerate(EMOTIONS)
    }


def labels_sha256(rows: LabelledFaces) -> str:
    """SHA-256 of the names and labels of faces, which tells whether two runs had the same rows."""
    found = hashlib.sha256("\n".join(rows.names.tolist()).encode())
    for labels in (rows.labels, rows.majority, rows.distributions):
        found.update(labels.tobytes())
    return found.hexdigest()
