"""The batch sizes that reach a Triton server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.deadline import NEVER, Deadline
from service.core.manifest import ClassifierManifest, read_manifest
from service.inference.breaker import Breaker
from service.inference.triton import TritonClassifier, TritonConnection
from service.settings import Settings


@pytest.mark.parametrize(("count", "warm"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (9, 10), (10, 10)])
async def test_faces_are_padded_to_a_warm_size_and_answers_are_not(
    count: int, warm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(Path(Settings().model_repository), "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)
    classifier = TritonClassifier(TritonConnection("127.0.0.1:1"), manifest, Breaker(), max_batch_faces=10)

    async def infer(inputs: dict[str, NDArray[np.uint8]], deadline: Deadline) -> list[NDArray[np.float32]]:
        rows = inputs["faces__0"]
        assert rows.shape == (warm, 3, 48, 48)
        values = rows[:, 0, 0, 0].astype(np.float32)[:, None]
        return [values, values, values, values]

    monkeypatch.setattr(classifier, "_infer", infer)
    faces = np.zeros((count, 3, 48, 48), np.uint8)
    faces[:, 0, 0, 0] = np.arange(count) + 1
    answer = await classifier.classify(faces, NEVER)
    assert answer.probabilities[:, 0].tolist() == list(range(1, count + 1))
    assert len(answer.gates) == len(answer.occlusion) == len(answer.face_likeness) == count
