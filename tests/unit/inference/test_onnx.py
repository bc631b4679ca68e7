"""The embedded engine with tiny models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.core.arrays import Faces
from service.core.deadline import NEVER
from service.core.errors import EngineUnavailable, ModelFileError
from service.core.manifest import (
    ClassifierManifest,
    Crop,
    Input,
    Manifest,
    Prior,
    Training,
    VerdictRule,
    digest,
)
from service.inference import onnx
from service.inference.onnx import OnnxClassifier, OnnxDetector
from training.export_detector import INTERFACE as DETECTOR
from training.formats import Interface, onnx_file

SIDE_PX = 8


class TinyClassifier(nn.Module):
    """Two labels. The probability of the first is the mean brightness of the face."""

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        bright = faces.float().mean(dim=[1, 2, 3]) / 255
        gates = torch.tensor([0.6, 0.4, 0.0, 0.0]).repeat(faces.shape[0], 2, 1)
        return torch.stack([bright, 1 - bright], dim=1), gates, bright[:, None] / 2, bright[:, None] / 4


class TinyDetector(nn.Module):
    """Finds a face as large as the image if `threshold` is at most 0.5. Its nose has x = `min_face_px`."""

    def forward(self, image: Tensor, min_face_px: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = threshold <= 0.5
        box = torch.tensor([0, 0, image.shape[1], image.shape[0]]).float()[None]
        nose = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]) * min_face_px
        return box[found], torch.full([1], 0.5)[found], nose.view(1, 5, 2)[found]


class FailingClassifier(nn.Module):
    """Fails at faces brighter than 3, like an operator that gets an invalid value."""

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = faces.shape[0]
        rows = torch.full([4, 2], 0.5)[faces.float().amax(dim=[1, 2, 3]).long()]
        return rows, torch.zeros([count, 2, 4]), torch.zeros([count, 1]), torch.zeros([count, 1])


FACES = torch.zeros(2, 3, SIDE_PX, SIDE_PX, dtype=torch.uint8)
OUTPUTS = ("probabilities__0", "gates__1", "occlusion__2", "face_likeness__3")
CLASSIFIER = Interface({"faces__0": FACES}, OUTPUTS, {name: {0: "batch"} for name in ("faces__0", *OUTPUTS)})


def model(module: nn.Module, interface: Interface, folder: Path) -> Path:
    path = folder / "tiny" / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(onnx_file(module, interface))
    return path


def classifier_of(path: Path, spare_core: bool = False) -> OnnxClassifier:
    manifest = ClassifierManifest(
        name="tiny",
        version="1",
        sha256={"model.onnx": digest(path), "model.pt": "0" * 64},
        labels=("happiness", "neutral"),
        input=Input(size=SIDE_PX, crop=Crop(left_eye=(0.3, 0.4), right_eye=(0.7, 0.4), mouth=(0.5, 0.8))),
        prior=Prior(shares={}, strength=1, balanced_strength=0),
        verdict=VerdictRule(threshold=0.5, coverage=1, accuracy=1, data="none"),
        training=Training(data=(), licences=(), config={}),
        intended_use="tests",
        limits=(),
    )
    return OnnxClassifier(path.parents[2], manifest, 2, lambda: spare_core)


def detector_of(path: Path, spare_core: bool = False) -> OnnxDetector:
    manifest = Manifest(
        name="tiny",
        version="1",
        kind="detector",
        sha256={"model.onnx": digest(path), "model.pt": "0" * 64},
        training=Training(data=(), licences=(), config={}),
        intended_use="tests",
        limits=(),
    )
    return OnnxDetector(path.parents[2], manifest, lambda: spare_core)


@pytest.fixture
async def classifier(tmp_path: Path) -> AsyncIterator[OnnxClassifier]:
    engine = classifier_of(model(TinyClassifier(), CLASSIFIER, tmp_path))
    yield engine
    await engine.close()


@pytest.fixture
async def detector(tmp_path: Path) -> AsyncIterator[OnnxDetector]:
    engine = detector_of(model(TinyDetector(), DETECTOR, tmp_path / "detector"))
    yield engine
    await engine.close()


def flat(*brightness: int) -> Faces:
    return np.stack([np.full((3, SIDE_PX, SIDE_PX), value, np.uint8) for value in brightness])


async def test_the_classifier_answers_each_row(classifier: OnnxClassifier) -> None:
    await classifier.warm_up()
    await classifier.ping()
    answer = await classifier.classify(flat(0, 51, 255), NEVER)
    assert answer.probabilities.dtype == answer.gates.dtype == np.float32
    np.testing.assert_allclose(answer.probabilities, np.array([[0, 1], [0.2, 0.8], [1, 0]]), atol=1e-6)
    np.testing.assert_allclose(answer.gates, np.tile([0.6, 0.4, 0, 0], (3, 2, 1)), atol=1e-6)
    np.testing.assert_allclose(answer.occlusion, np.array([[0], [0.1], [0.5]]), atol=1e-6)
    np.testing.assert_allclose(answer.face_likeness, answer.occlusion / 2, atol=1e-6)


async def test_the_detector_gets_its_parameters(detector: OnnxDetector) -> None:
    await detector.warm_up()
    await detector.ping()
    image = np.zeros((30, 40, 3), np.uint8)
    image.flags.writeable = False  # like the pixels of Pillow
    found = detector.find(image, 24.0, 0.5)
    assert found.boxes.tolist() == [[0, 0, 40, 30]]
    assert found.scores.tolist() == [0.5]
    assert found.landmarks.shape == (1, 5, 2)
    assert found.landmarks[0, 2, 0] == 24
    empty = detector.find(image, 24.0, 0.9)
    assert empty.boxes.shape == (0, 4)
    assert empty.scores.shape == (0,)
    assert empty.landmarks.shape == (0, 5, 2)


class Named:
    """A session that records its name when it runs."""

    def __init__(self, name: str, session: Any, used: list[str]) -> None:
        self.name, self.session, self.used = name, session, used

    def run(self, *arguments: Any) -> Any:
        self.used.append(self.name)
        return self.session.run(*arguments)


def record_runs(engine: OnnxClassifier | OnnxDetector) -> list[str]:
    used: list[str] = []
    engine._session = Named("one thread", engine._session, used)
    engine._multicore = Named("two threads", engine._multicore, used)
    return used


@pytest.mark.parametrize(
    ("count", "spare_core", "session"),
    [
        (1, False, "one thread"),
        (7, False, "one thread"),
        (8, False, "two threads"),
        (32, False, "two threads"),
        (1, True, "two threads"),
    ],
)
async def test_many_faces_or_a_spare_core_make_the_classifier_use_two_threads(
    tmp_path: Path, count: int, spare_core: bool, session: str
) -> None:
    engine = classifier_of(model(TinyClassifier(), CLASSIFIER, tmp_path), spare_core)
    await engine.warm_up()
    used = record_runs(engine)
    answer = await engine.classify(flat(*range(count)), NEVER)
    await engine.close()
    assert used == [session]
    np.testing.assert_allclose(answer.probabilities[:, 0], np.arange(count) / 255, atol=1e-6)


@pytest.mark.parametrize("spare_core", [False, True])
async def test_a_spare_core_makes_the_detector_use_two_threads(tmp_path: Path, spare_core: bool) -> None:
    engine = detector_of(model(TinyDetector(), DETECTOR, tmp_path), spare_core)
    await engine.warm_up()
    used = record_runs(engine)
    assert len(engine.find(np.zeros((9, 9, 3), np.uint8), 32, 0.5).boxes) == 1
    await engine.close()
    assert used == ["two threads" if spare_core else "one thread"]


async def test_a_corrupt_file_is_refused_by_name(tmp_path: Path) -> None:
    path = model(TinyClassifier(), CLASSIFIER, tmp_path)
    path.write_bytes(b"not a model" * 100)
    engine = classifier_of(path)
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be loaded"):
        await engine.warm_up()
    with pytest.raises(EngineUnavailable):
        await engine.ping()
    await engine.close()


async def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    path = model(TinyDetector(), DETECTOR, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    engine = detector_of(path)
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be loaded"):
        await engine.warm_up()
    await engine.close()


async def test_a_file_that_was_swapped_after_it_was_verified_is_not_loaded(tmp_path: Path) -> None:
    engine = classifier_of(model(TinyClassifier(), CLASSIFIER, tmp_path))
    model(FailingClassifier(), CLASSIFIER, tmp_path)
    with pytest.raises(ModelFileError, match="sha256"):
        await engine.warm_up()
    await engine.close()


async def test_a_call_that_does_not_return_makes_the_engine_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = classifier_of(model(TinyClassifier(), CLASSIFIER, tmp_path))
    await engine.warm_up()
    release = threading.Event()
    assert engine._session is not None
    run = engine._session.run

    class Hanging:
        def run(self, *arguments: Any) -> Any:
            release.wait(30)
            return run(*arguments)

    monkeypatch.setattr(engine, "_session", Hanging())
    call = asyncio.create_task(engine.classify(flat(1), NEVER))
    try:
        await asyncio.sleep(0.05)
        await engine.ping()  # a slow call is no error yet
        monkeypatch.setattr(onnx, "STUCK_S", 0.01)
        with pytest.raises(EngineUnavailable, match="has not returned"):
            await engine.ping()
    finally:
        release.set()
    await call
    await engine.ping()
    await engine.close()


async def test_a_failed_call_is_an_unavailable_engine(tmp_path: Path) -> None:
    engine = classifier_of(model(FailingClassifier(), CLASSIFIER, tmp_path))
    await engine.warm_up()
    try:
        with pytest.raises(EngineUnavailable) as caught:
            await engine.classify(flat(200), NEVER)
        assert caught.value.detail == "the model could not be run"
        assert (await engine.classify(flat(2), NEVER)).probabilities.tolist() == [[0.5, 0.5]]
    finally:
        await engine.close()


async def use(engine: OnnxClassifier | OnnxDetector) -> None:
    if isinstance(engine, OnnxClassifier):
        await engine.classify(flat(1), NEVER)
    else:
        engine.find(np.zeros((9, 9, 3), np.uint8), 32, 0.9)


async def test_an_engine_refuses_calls_before_loading_and_after_closing(
    classifier: OnnxClassifier, detector: OnnxDetector
) -> None:
    async def refuses(engine: OnnxClassifier | OnnxDetector) -> None:
        with pytest.raises(EngineUnavailable):
            await engine.ping()
        with pytest.raises(EngineUnavailable):
            await use(engine)

    for engine in (classifier, detector):
        await refuses(engine)
        await engine.warm_up()
        await engine.ping()
        await use(engine)
        await engine.close()
        await refuses(engine)
