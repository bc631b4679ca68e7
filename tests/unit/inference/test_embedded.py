"""The embedded engine over tiny scripted models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.arrays import Classification, Faces
from service.deadline import NEVER, Deadline
from service.errors import EngineUnavailable, ModelFileError
from service.inference import embedded
from service.inference.embedded import EmbeddedClassifier, EmbeddedDetector
from service.manifest import ClassifierManifest, Crop, Input, Training, Verdict, digest

SIDE_PX = 8


class TinyClassifier(nn.Module):
    """Two labels: the first is the surer the brighter the face is."""

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bright = faces.float().mean(dim=[1, 2, 3]) / 255
        gates = torch.tensor([0.6, 0.4, 0.0, 0.0]).repeat(faces.shape[0], 2, 1)
        return torch.stack([bright, 1 - bright], dim=1), gates, bright[:, None] / 2


class TinyDetector(nn.Module):
    """One face as large as the image, found when `threshold` is at most 0.5; its nose tells `min_face_px`."""

    def forward(self, image: Tensor, min_face_px: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = 1 if float(threshold) <= 0.5 else 0
        box = torch.tensor([[0.0, 0.0, float(image.shape[1]), float(image.shape[0])]])
        landmarks = torch.zeros([1, 5, 2])
        landmarks[0, 2, 0] = min_face_px[0]
        return box[:count], torch.full([count], 0.5), landmarks[:count]


class SpreadingDetector(TinyDetector):
    """Its score tells that other threads helped."""

    @torch.jit.export
    def spread(self, image: Tensor, min_face_px: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes, scores, landmarks = self.forward(image, min_face_px, threshold)
        return boxes, torch.jit.wait(torch.jit.fork(torch.add, scores, 0.25)), landmarks


class FailingClassifier(nn.Module):
    """Refuses dark faces, as a graph that raises does."""

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if int(faces.max()) == 1:
            raise RuntimeError("a dark face")
        count = faces.shape[0]
        return torch.full([count, 2], 0.5), torch.zeros([count, 2, 4]), torch.zeros([count, 1])


class MismatchedClassifier(nn.Module):
    """Refuses dark faces, as an operator that cannot work does."""

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if int(faces.max()) == 1:
            return torch.zeros([2, 3]) @ torch.zeros([2, 3]), torch.zeros([1]), torch.zeros([1])
        count = faces.shape[0]
        return torch.full([count, 2], 0.5), torch.zeros([count, 2, 4]), torch.zeros([count, 1])


def scripted(module: nn.Module, folder: Path) -> Path:
    path = folder / f"{type(module).__name__}.pt"
    torch.jit.script(module.eval()).save(str(path))
    return path


def classifier_of(path: Path, max_batch_faces: int = 4) -> EmbeddedClassifier:
    manifest = ClassifierManifest(
        name="tiny",
        version="1",
        sha256=digest(path),
        labels=("happiness", "neutral"),
        input=Input(size=SIDE_PX, crop=Crop(left_eye=(0.3, 0.4), right_eye=(0.7, 0.4), mouth=(0.5, 0.8))),
        verdict=Verdict(threshold=0.5, coverage=1, accuracy=1, data="none"),
        training=Training(data=(), licences=(), config={}),
        intended_use="tests",
        limits=(),
    )
    return EmbeddedClassifier(path, manifest, max_batch_faces)


def detector_of(path: Path) -> EmbeddedDetector:
    return EmbeddedDetector(path, digest(path), helpers=2)


@pytest.fixture
async def classifier(tmp_path: Path) -> AsyncIterator[EmbeddedClassifier]:
    engine = classifier_of(scripted(TinyClassifier(), tmp_path))
    yield engine
    await engine.close()


@pytest.fixture
async def detector(tmp_path: Path) -> AsyncIterator[EmbeddedDetector]:
    engine = detector_of(scripted(TinyDetector(), tmp_path))
    yield engine
    await engine.close()


def flat(*brightness: int) -> Faces:
    return np.stack([np.full((3, SIDE_PX, SIDE_PX), value, np.uint8) for value in brightness])


async def test_the_classifier_answers_each_row(classifier: EmbeddedClassifier) -> None:
    await classifier.warm_up()
    await classifier.ping()
    answer = await classifier.classify(flat(0, 51, 255), NEVER)
    assert answer.probabilities.dtype == answer.gates.dtype == np.float32
    np.testing.assert_allclose(answer.probabilities, [[0, 1], [0.2, 0.8], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(answer.gates, np.tile([0.6, 0.4, 0, 0], (3, 2, 1)), atol=1e-6)
    np.testing.assert_allclose(answer.occlusion, [[0], [0.1], [0.5]], atol=1e-6)


@pytest.mark.parametrize("max_batch_faces", [1, 5, 8])
async def test_warm_up_runs_every_batch_size_that_will_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_batch_faces: int
) -> None:
    engine = classifier_of(scripted(TinyClassifier(), tmp_path), max_batch_faces)
    shapes: set[tuple[int, ...]] = set()
    classify = engine.classify

    async def recording(faces: Faces, deadline: Deadline) -> Classification:
        shapes.add(faces.shape)
        return await classify(faces, deadline)

    monkeypatch.setattr(engine, "classify", recording)
    await engine.warm_up()
    await engine.close()
    sizes = {1: {1}, 5: {1, 2, 4, 5}, 8: {1, 2, 4, 8}}[max_batch_faces]
    assert shapes == {(size, 3, SIDE_PX, SIDE_PX) for size in sizes}


async def test_the_detector_gets_its_parameters(detector: EmbeddedDetector) -> None:
    await detector.warm_up()
    await detector.ping()
    image = np.zeros((30, 40, 3), np.uint8)
    image.flags.writeable = False  # as Pillow's pixels are
    found = detector.find(image, 24.0, 0.5)
    assert found.boxes.tolist() == [[0, 0, 40, 30]]
    assert found.scores.tolist() == [0.5]
    assert found.landmarks.shape == (1, 5, 2)
    assert found.landmarks[0, 2, 0] == 24
    none = detector.find(image, 24.0, 0.9)
    assert none.boxes.shape == (0, 4)
    assert none.scores.shape == (0,)
    assert none.landmarks.shape == (0, 5, 2)


@pytest.mark.parametrize(("kind", "helped"), [(SpreadingDetector, 0.75), (TinyDetector, 0.5)])
async def test_other_threads_help_where_they_are_idle_and_the_detector_can_use_them(
    tmp_path: Path, kind: type[nn.Module], helped: float
) -> None:
    engine = detector_of(scripted(kind(), tmp_path))
    await engine.warm_up()
    image = np.zeros((30, 40, 3), np.uint8)
    assert engine.find(image, 24.0, 0.5).scores.tolist() == [0.5]
    assert engine.find(image, 24.0, 0.5, alone=True).scores.tolist() == [helped]
    await engine.close()
    with pytest.raises(EngineUnavailable):
        engine.find(image, 24.0, 0.5, alone=True)


async def test_a_corrupt_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"not a model" * 100)
    engine = classifier_of(path)
    with pytest.raises(ModelFileError, match=r"model\.pt"):
        await engine.warm_up()
    with pytest.raises(EngineUnavailable):
        await engine.ping()
    await engine.close()


async def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    path = scripted(TinyDetector(), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    engine = detector_of(path)
    with pytest.raises(ModelFileError, match=r"TinyDetector\.pt"):
        await engine.warm_up()
    await engine.close()


async def test_a_file_that_was_swapped_after_it_was_verified_is_not_loaded(tmp_path: Path) -> None:
    engine = classifier_of(scripted(TinyClassifier(), tmp_path))
    other = scripted(FailingClassifier(), tmp_path)
    other.replace(tmp_path / "TinyClassifier.pt")
    with pytest.raises(ModelFileError, match="sha256"):
        await engine.warm_up()
    await engine.close()


async def test_a_call_that_does_not_come_back_takes_the_engine_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = classifier_of(scripted(TinyClassifier(), tmp_path))
    await engine.warm_up()
    release = threading.Event()
    run = engine._run

    def hanging(method: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        release.wait(30)
        return run(method, *inputs)

    monkeypatch.setattr(engine, "_run", hanging)
    call = asyncio.create_task(engine.classify(flat(1), NEVER))
    try:
        await asyncio.sleep(0.05)
        await engine.ping()  # it may be slow
        monkeypatch.setattr(embedded, "STUCK_S", 0.01)
        with pytest.raises(EngineUnavailable, match="has not come back"):
            await engine.ping()
    finally:
        release.set()
    await call
    await engine.ping()
    await engine.close()


@pytest.mark.parametrize("module", [FailingClassifier(), MismatchedClassifier()], ids=["raise", "operator"])
async def test_a_forward_that_fails_is_an_unavailable_engine(tmp_path: Path, module: nn.Module) -> None:
    engine = classifier_of(scripted(module, tmp_path))
    await engine.warm_up()
    try:
        with pytest.raises(EngineUnavailable) as caught:
            await engine.classify(flat(1), NEVER)
        assert "dark" not in caught.value.detail
        assert (await engine.classify(flat(2), NEVER)).probabilities.tolist() == [[0.5, 0.5]]
    finally:
        await engine.close()


async def use(engine: EmbeddedClassifier | EmbeddedDetector) -> None:
    if isinstance(engine, EmbeddedClassifier):
        await engine.classify(flat(1), NEVER)
    else:
        engine.find(np.zeros((9, 9, 3), np.uint8), 32, 0.9)


async def test_before_loading_and_after_closing_nothing_answers(
    classifier: EmbeddedClassifier, detector: EmbeddedDetector
) -> None:
    async def refuses(engine: EmbeddedClassifier | EmbeddedDetector) -> None:
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
