"""From a training run to a served model, on made-up images of one real face."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from service.core.manifest import (
    EMOTIONS,
    MODEL_FILES,
    ONNX,
    TORCHSCRIPT,
    ClassifierManifest,
    manifest_path,
    read_manifest,
    verified_model_path,
)
from service.settings import Settings
from tests.unit.training.made_up import tiny_config
from training import export_classifier as exporting
from training.cli import app
from training.datasets.faces import Dataset, LabelledFaces, PixelPictures, one_hot
from training.evaluation.poor_pictures import CORRUPTIONS
from training.export_subgroups import export_subgroups
from training.formats import Files, Pair, onnx_file, torchscript_file
from training.framing import PhotoCropper, measure_crop, realign
from training.repository import write_manifest
from training.train import train

REPOSITORY = Settings().model_repository
TRAINING, TEST = 40, 6


def fer_like(astronaut: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """The astronaut's face, framed as in FER-2013. Each number has another position and brightness."""
    generator = np.random.default_rng(number)
    x, y = generator.integers(-3, 4, 2)
    crop = Image.fromarray(astronaut).crop((168 + x, 60 + y, 280 + x, 172 + y)).convert("L")
    bright = np.asarray(crop.resize((48, 48), Image.Resampling.BICUBIC)) * generator.uniform(0.5, 1.0)
    noisy = bright + generator.normal(0, 2, (48, 48))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def faces(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([fer_like(astronaut, number) for number in range(TRAINING + TEST)])


@pytest.fixture(scope="module")
def cropper() -> PhotoCropper:
    return PhotoCropper(REPOSITORY)


def labelled(images: NDArray[np.uint8], first: int) -> LabelledFaces:
    labels = np.arange(len(images)) % 2
    return LabelledFaces(
        PixelPictures(images),
        names=np.array([str(first + row) for row in range(len(images))]),
        labels=labels,
        distributions=one_hot(labels),
        majority=labels,
        group=first + np.arange(len(images)),
    )


@pytest.fixture
def dataset(faces: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> Dataset:
    astronauts = Dataset(
        "astronauts",
        EMOTIONS,
        EMOTIONS[:7],
        labelled(faces[:TRAINING], 0),
        {"test": labelled(faces[TRAINING:], TRAINING)},
        ("public domain",),
    )
    monkeypatch.setattr(exporting, "load", lambda kind, folder, **_: astronauts)
    monkeypatch.setattr("training.export_subgroups.load", lambda kind, folder, **_: astronauts)
    # A network trained for two seconds is seldom right.
    monkeypatch.setattr("training.calibrate.SELECTIVE_ACCURACY", 0.0)
    # All rows show the same face. Without near-copies of the test rows, no training rows would remain.
    monkeypatch.setattr("training.rows.drop_near_duplicates", lambda rows, others: rows)
    monkeypatch.setattr(exporting, "drop_near_duplicates", lambda rows, others: rows)
    # One strength of each corruption saves time. Figures of so few faces mean nothing.
    weakest = tuple(replace(corruption, strengths=corruption.strengths[:1]) for corruption in CORRUPTIONS)
    monkeypatch.setattr("training.evaluation.quality.CORRUPTIONS", weakest)
    return astronauts


def test_a_run_becomes_a_served_model(dataset: Dataset, faces: NDArray[np.uint8], tmp_path: Path) -> None:
    repository = tmp_path / "models"
    shutil.copytree(REPOSITORY / "yunet", repository / "yunet")
    train(tiny_config(), dataset, tmp_path / "run", threads=1)

    exporting.export_classifier(tmp_path / "run", tmp_path, repository)

    manifest = read_manifest(repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)
    assert manifest.input.size == 48
    assert manifest.labels == EMOTIONS
    assert manifest.metrics["test"]["accuracy"].samples == TEST
    assert manifest.metrics["test"]["original_labels_label_head"].samples == TEST
    assert manifest.metrics["test_realigned"]["accuracy"].samples > 0
    assert manifest.training.config["network"]["residual_widths"] == [4, 8]
    assert manifest.training.config["versions"][0]["from_epoch"] == 1
    assert manifest.metrics["onnx_against_torchscript"]["probabilities"].value < 1e-4
    files = {file: verified_model_path(repository, manifest, file).read_bytes() for file in MODEL_FILES}
    for answer in Pair(files).answers(torch.from_numpy(np.repeat(faces[:5, None], 3, axis=1))):
        probabilities, gates, *hints = answer
        assert probabilities.shape == (5, 8)
        assert gates.shape == (5, 2, 4)
        assert [hint.shape for hint in hints] == [(5, 1), (5, 1)]
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    config = (repository / "expressnet_moe" / "config.pbtxt").read_text()
    assert 'name: "faces__0", data_type: TYPE_UINT8, dims: [ 3, 48, 48 ]' in config

    measured = manifest.subgroups
    assert measured is not None
    assert measured.data == "test"
    assert sum(measured.accuracy[f"light: {part}"].samples for part in ("low", "middle", "high")) == TEST
    assert {emotion: recall.samples for emotion, recall in measured.recall.items()} == {
        "neutral": TEST // 2,
        "happiness": TEST // 2,
    }
    assert "skin tone" in measured.not_measured
    # Measured on the served file, the subgroups are those of the trained network.
    written = (repository / "expressnet_moe" / "manifest.json").read_bytes()
    write_manifest(
        manifest_path(repository, "expressnet_moe"), manifest.model_copy(update={"subgroups": None})
    )
    assert (repository / "expressnet_moe" / "manifest.json").read_bytes() != written
    export_subgroups(tmp_path, repository, "expressnet_moe", kind="fer2013")
    assert (repository / "expressnet_moe" / "manifest.json").read_bytes() == written
    with pytest.raises(ValueError, match=r"no split 'other'; astronauts has test"):
        export_subgroups(tmp_path, repository, "expressnet_moe", kind="fer2013", split="other")
    with pytest.raises(ValueError, match="yunet is a detector"):
        export_subgroups(tmp_path, repository, "yunet")

    exporting.export_classifier(tmp_path / "run", tmp_path, repository)
    again = read_manifest(repository, "expressnet_moe")
    assert again.sha256 == manifest.sha256


def test_an_export_has_quality_limits_that_can_be_measured_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models"
    shutil.copytree(REPOSITORY / "yunet", repository / "yunet")
    config = tiny_config(epochs=1)
    network = {**config.network.model_dump(), "experts": 6}
    train(tiny_config(epochs=1, network=network), dataset, tmp_path / "run", threads=1)
    # The data set is tiny, so a band may have as few as 4 faces.
    monkeypatch.setattr("training.evaluation.quality.BAND_ROWS", 4)
    exporting.export_classifier(tmp_path / "run", tmp_path, repository)

    manifest = read_manifest(repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)
    # The number of experts is that of the network.
    assert "dims: [ 2, 6 ]" in (repository / "expressnet_moe" / "config.pbtxt").read_text()
    quality = manifest.verdict.quality
    assert quality is not None
    codes = [limit.code for limit in quality.limits]
    assert codes[:5] == ["too_small", "blurred", "too_dark", "too_bright", "low_contrast"]
    assert codes[5:7] == ["occluded", "no_clear_face"]
    assert all(limit.bands for limit in quality.limits[:7])
    assert manifest.metrics["test_quality"]["coverage"].samples <= TEST
    assert manifest.metrics["test_quality_corrupted"]["coverage"].samples > TEST
    assert manifest.metrics["test_quality_not_faces"]["selective_accuracy_without_limits"].value == 0

    monkeypatch.setattr("training.export_quality.load", lambda kind, folder, **_: dataset)
    path = repository / "expressnet_moe" / "manifest.json"
    content = json.loads(path.read_text())
    del content["verdict"]["quality"]
    path.write_text(json.dumps(content))
    command = ("export", "quality", "--data", "any", "--repository", str(repository))
    result = CliRunner().invoke(app, [*command, "--plot", str(tmp_path / "bands.png")])
    assert result.exit_code == 0, result.output
    assert "| from | below | faces |" in result.stdout
    assert (tmp_path / "bands.png").stat().st_size > 10_000
    assert read_manifest(repository, "expressnet_moe") == manifest


def random_files(pickled: bytes) -> Files:
    return {file: os.urandom(8) for file in MODEL_FILES}


def test_a_file_that_cannot_be_reproduced_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models"
    shutil.copytree(REPOSITORY / "yunet", repository / "yunet")
    train(tiny_config(epochs=1), dataset, tmp_path / "run", threads=1)
    monkeypatch.setattr("training.formats._made", random_files)
    with pytest.raises(RuntimeError, match="two exports of it differ"):
        exporting.export_classifier(tmp_path / "run", tmp_path, repository)
    assert not (repository / "expressnet_moe").exists()


class DependentRows(nn.Module):
    """A network in which each row's answer depends on the other rows."""

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean = faces.float().mean().expand(len(faces), 8)
        return mean, mean.view(-1, 2, 4), mean[:, :1], mean[:, 1:2]


def test_a_network_whose_rows_depend_on_each_other_is_refused() -> None:
    interface = exporting.interface(48)
    network = DependentRows().eval()
    pair = Pair({TORCHSCRIPT: torchscript_file(network), ONNX: onnx_file(network, interface)})
    with pytest.raises(RuntimeError, match=r"differs from the network by .* of a batch of 1"):
        exporting.agreement(DependentRows(), pair, 48)


def test_measure_crop_finds_eyes_and_mouth(faces: NDArray[np.uint8], cropper: PhotoCropper) -> None:
    crop = measure_crop(PixelPictures(faces), cropper, size=48)
    # Measured by hand in the astronaut: eyes at (205, 103) and (247, 104), mouth at (224, 141).
    # The crop is at (168, 60).
    assert crop.left_eye[1] == crop.right_eye[1] == pytest.approx(44 / 112, abs=0.04)
    assert crop.right_eye[0] - crop.left_eye[0] == pytest.approx(42 / 112, abs=0.04)
    assert crop.mouth[1] == pytest.approx(81 / 112, abs=0.04)


@pytest.mark.parametrize("size", [48, 96])
def test_realigned_images_have_the_eyes_at_the_points_of_the_crop(
    size: int, faces: NDArray[np.uint8], cropper: PhotoCropper
) -> None:
    crop = measure_crop(PixelPictures(faces), cropper, size=size)
    blank = np.zeros((1, 48, 48), np.uint8)
    realigned, found = realign(PixelPictures(np.concatenate([faces[:8], blank])), cropper, crop, size=size)
    assert found.tolist() == [True] * 8 + [False]
    again = measure_crop(realigned, cropper, size=size)
    assert again.left_eye == pytest.approx(crop.left_eye, abs=0.03)
    assert again.mouth == pytest.approx(crop.mouth, abs=0.03)
    left_eyes = [
        measure_crop(pictures.choose(np.array([row])), cropper, size=size).left_eye
        for pictures in (PixelPictures(faces[:8]), realigned)
        for row in range(8)
    ]
    assert np.std(left_eyes[8:], axis=0).max() < np.std(left_eyes[:8], axis=0).max()
