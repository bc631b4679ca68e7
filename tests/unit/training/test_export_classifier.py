"""From a training run to a served model, on made-up images of one real face."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from service.manifest import ClassifierManifest, read_manifest, verified_model_path
from service.settings import Settings
from tests.unit.training.made_up import tiny_config, write_fer2013
from training import export_classifier as exporting
from training.datasets import fer2013
from training.datasets.fer2013 import load_fer2013
from training.framing import detect_landmarks, measure_crop, realign
from training.repository import script
from training.train import train

COUNTS = {"Training": 40, "PublicTest": 6}
DETECTOR = Settings().model_repository / "mtcnn" / "1" / "model.pt"


def fer_like(astronaut: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """The astronaut's face as FER-2013 frames one, a little moved and lit each time."""
    generator = np.random.default_rng(number)
    x, y = generator.integers(-3, 4, 2)
    crop = Image.fromarray(astronaut).crop((168 + x, 60 + y, 280 + x, 172 + y)).convert("L")
    bright = np.asarray(crop.resize((48, 48), Image.Resampling.BICUBIC)) * generator.uniform(0.5, 1.0)
    noisy = bright + generator.normal(0, 2, (48, 48))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def faces(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([fer_like(astronaut, number) for number in range(sum(COUNTS.values()))])


def test_a_run_becomes_a_served_model(
    faces: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fer2013, "PUBLISHED_COUNTS", COUNTS)
    monkeypatch.setattr(exporting, "SELECTIVE_ACCURACY", 0.0)  # a network of two seconds is seldom right
    # The one face is all there is: as near-copies of the test's nothing would be left to train on.
    monkeypatch.setattr(exporting, "training_rows", split_without_comparing)
    monkeypatch.setattr("training.train.training_rows", split_without_comparing)
    monkeypatch.setattr(exporting, "without_copies_of", lambda rows, others: rows)
    usages = [usage for usage, count in COUNTS.items() for _ in range(count)]
    data = write_fer2013(tmp_path / "data", zip(usages, faces, strict=True))
    repository = tmp_path / "models"
    shutil.copytree(DETECTOR.parents[1], repository / "mtcnn")
    train(tiny_config(), data, tmp_path / "run")

    exporting.export_classifier(tmp_path / "run", data, repository)

    manifest = read_manifest(repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)
    assert manifest.input.size == 48
    assert manifest.metrics["fer2013_publictest"]["accuracy"].samples == 6
    assert manifest.metrics["ferplus_publictest_realigned"]["accuracy"].samples > 0
    assert manifest.training.config["network"]["backbone_width"] == 4
    module = torch.jit.load(str(verified_model_path(repository, manifest)))
    probabilities, gates = module(torch.from_numpy(np.repeat(faces[:5, None], 3, axis=1)))
    assert probabilities.shape == (5, 8)
    assert gates.shape == (5, 2, 4)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))
    config = (repository / "expressnet_moe" / "config.pbtxt").read_text()
    assert 'name: "faces__0", data_type: TYPE_UINT8, dims: [ 3, 48, 48 ]' in config


def split_without_comparing(splits: dict[str, fer2013.FaceImages], config: object) -> object:
    return fer2013.carve_validation(splits["Training"], 0.25, 0)


class Neighbourly(nn.Module):
    """Each row's answer depends on the others."""

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        mean = faces.float().mean()
        return mean.expand(len(faces), 8), mean.expand(len(faces), 8).view(-1, 2, 4)


def test_a_network_whose_rows_depend_on_each_other_is_refused() -> None:
    with pytest.raises(RuntimeError, match="batch of 1"):
        exporting.check_parity(Neighbourly(), script(Neighbourly()), 48)


def test_eyes_and_mouth_are_measured_where_they_are(faces: NDArray[np.uint8]) -> None:
    crop = measure_crop(faces, DETECTOR)
    # By hand in the astronaut: eyes at (205, 103) and (247, 104), mouth at (224, 141); crop at (168, 60).
    assert crop.left_eye[1] == crop.right_eye[1] == pytest.approx(44 / 112, abs=0.04)
    assert crop.right_eye[0] - crop.left_eye[0] == pytest.approx(42 / 112, abs=0.04)
    assert crop.mouth[1] == pytest.approx(81 / 112, abs=0.04)


def test_realigned_images_show_the_face_where_the_crop_wants_it(faces: NDArray[np.uint8]) -> None:
    crop = measure_crop(faces, DETECTOR)
    blank = np.zeros((1, 48, 48), np.uint8)
    realigned, found = realign(np.concatenate([faces[:8], blank]), DETECTOR, crop)
    assert found.tolist() == [True] * 8 + [False]
    eyes = detect_landmarks(realigned, DETECTOR)[:, :2] / 48
    spread = np.nanstd(eyes, axis=0).max()
    assert spread < np.nanstd(detect_landmarks(faces[:8], DETECTOR)[:, :2] / 48, axis=0).max()
    assert np.nanmedian(eyes[:, 0], axis=0) == pytest.approx(crop.left_eye, abs=0.03)


def test_the_counts_are_those_of_the_files(
    faces: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fer2013, "PUBLISHED_COUNTS", COUNTS)
    usages = [usage for usage, count in COUNTS.items() for _ in range(count)]
    data = write_fer2013(tmp_path / "data", zip(usages, faces, strict=True))
    assert {usage: len(rows) for usage, rows in load_fer2013(data).items()} == COUNTS
