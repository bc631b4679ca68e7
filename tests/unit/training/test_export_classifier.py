"""From a training run to a served model, on made-up images of one real face."""

from __future__ import annotations

import os
import re
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

from service.core.errors import ModelFileError
from service.core.manifest import (
    EMOTIONS,
    MODEL_FILES,
    ONNX,
    TORCHSCRIPT,
    ClassifierManifest,
    Input,
    read_manifest,
    verified_model_path,
)
from service.settings import Settings
from tests.unit.training.made_up import tiny_config
from training import export_classifier as exporting
from training.cli import app
from training.datasets.faces import Bools, Bytes, Dataset, Ints, LabelledFaces, PixelPictures, one_hot
from training.evaluation.poor_pictures import CORRUPTIONS
from training.evaluation.tables import shown
from training.export_figures import export_figures
from training.formats import Files, Pair, onnx_file, torchscript_file
from training.framing import PhotoCropper, crop_each, cut_out, measure_crop
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


class UnreadPictures(PixelPictures):
    """Pictures that nothing may look at."""

    def read(self, rows: Ints, *, size: int, channels: int) -> Bytes:
        raise AssertionError("a test picture is read")

    def choose(self, rows: Bools | Ints) -> UnreadPictures:
        return UnreadPictures(self.pixels[rows])


@pytest.fixture
def dataset(faces: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Two emotions that are the same face, and a test split whose pictures cannot be read."""
    test = replace(labelled(faces[TRAINING:], TRAINING), pictures=UnreadPictures(faces[TRAINING:]))
    training, licences = labelled(faces[:TRAINING], 0), ("public domain",)
    astronauts = Dataset("astronauts", EMOTIONS, EMOTIONS[:7], training, {"test": test}, licences)
    monkeypatch.setattr("training.evaluation.rows.load", lambda kind, folder, **_: astronauts)
    # A network trained for two seconds is seldom right.
    monkeypatch.setattr("training.calibrate.SELECTIVE_ACCURACY", 0.0)
    # All rows show the same face, so all are near-copies.
    monkeypatch.setattr("training.datasets.splits.without_test_rows", lambda rows, dataset: rows)
    monkeypatch.setattr("training.rows.drop_near_duplicates", lambda rows, others: rows)
    monkeypatch.setattr("training.export_figures.drop_near_duplicates", lambda rows, others: rows.rows([0]))
    # One strength of each corruption saves time. Figures of so few faces mean nothing.
    weakest = tuple(replace(corruption, strengths=corruption.strengths[:1]) for corruption in CORRUPTIONS)
    monkeypatch.setattr("training.evaluation.poor_pictures.CORRUPTIONS", weakest)
    # The data set is tiny, so a band may have as few as 4 faces.
    monkeypatch.setattr("training.evaluation.quality.BAND_ROWS", 4)
    return astronauts


def read_classifier(repository: Path) -> ClassifierManifest:
    manifest = read_manifest(repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)
    return manifest


def test_a_run_becomes_a_served_model_and_is_measured(
    dataset: Dataset, faces: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models"
    shutil.copytree(REPOSITORY / "yunet", repository / "yunet")
    config = tiny_config()
    network = {**config.network.model_dump(), "experts": 6}
    train(tiny_config(network=network), dataset, tmp_path / "run", threads=1)

    exporting.export_classifier(tmp_path / "run", tmp_path, repository)

    manifest = read_classifier(repository)
    assert manifest.input.size == 48
    assert manifest.labels == EMOTIONS
    assert manifest.training.config["network"]["residual_widths"] == [4, 8]
    assert manifest.training.config["versions"][0]["from_epoch"] == 1
    assert manifest.metrics["onnx_against_torchscript"]["probabilities"].value < 1e-4
    files = {file: verified_model_path(repository, manifest, file).read_bytes() for file in MODEL_FILES}
    for answer in Pair(files).answers(torch.from_numpy(np.repeat(faces[:5, None], 3, axis=1))):
        probabilities, gates, *hints = answer
        assert probabilities.shape == (5, 8)
        assert gates.shape == (5, 2, 6)
        assert [hint.shape for hint in hints] == [(5, 1), (5, 1)]
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    pbtxt = (repository / "expressnet_moe" / "config.pbtxt").read_text()
    assert 'name: "faces__0", data_type: TYPE_UINT8, dims: [ 3, 48, 48 ]' in pbtxt
    assert "dims: [ 2, 6 ]" in pbtxt

    validation = manifest.metrics["validation"]
    assert validation["original_labels_label_head"].samples == validation["accuracy"].samples == 10
    assert manifest.subgroups is None
    assert validation["plurality_accuracy"].samples == validation["ece"].samples == 10
    assert manifest.verdict.coverage == manifest.metrics["validation_balanced"]["coverage"].value
    assert manifest.verdict.data.endswith("measured on validation with the prior balanced")
    assert manifest.prior.shares["neutral"] + manifest.prior.shares["happiness"] == pytest.approx(1)
    quality = manifest.verdict.quality
    assert quality is not None
    codes = [limit.code for limit in quality.limits]
    assert codes[:5] == ["too_small", "blurred", "too_dark", "too_bright", "low_contrast"]
    assert codes[5:7] == ["occluded", "no_clear_face"]
    assert all(limit.bands for limit in quality.limits[:7])

    readable = replace(dataset, tests={"test": labelled(faces[TRAINING:], TRAINING)})
    monkeypatch.setattr("training.evaluation.rows.load", lambda kind, folder, **_: readable)
    # A checkpoint is not needed.
    shutil.move(tmp_path / "run", tmp_path / "kept")
    command = ("export", "figures", "--data", "any", "--dataset", "list", "--repository", str(repository))
    result = CliRunner().invoke(app, [*command, "--plot", str(tmp_path / "bands.png")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "bands.png").stat().st_size > 10_000
    measured = read_classifier(repository)
    assert measured.sha256 == manifest.sha256
    assert measured.metrics.items() > manifest.metrics.items()
    test = measured.metrics["test"]
    row = re.compile(rf"^\| test +\| accuracy +\| {re.escape(shown(test['accuracy']))}", re.MULTILINE)
    assert row.search(result.stdout)
    assert test["accuracy"].samples == test["original_labels_main_head"].samples == TEST
    assert "original_labels_label_head" not in test
    assert measured.metrics["test_without_copies"]["accuracy"].samples == 1
    found = measured.metrics["test_realigned"]["accuracy"].samples
    assert 0 < found == measured.metrics["test_realigned_whole"]["accuracy"].samples <= TEST
    assert measured.metrics["test_quality"]["coverage"].samples == found
    assert measured.metrics["test_shift: JPEG 10"]["accuracy"].samples == TEST
    assert measured.metrics["test_quality_corrupted"]["coverage"].samples == TEST * len(CORRUPTIONS)
    assert measured.metrics["test_quality_not_faces"]["selective_accuracy_without_limits"].value == 0
    expected = manifest.verdict.model_copy(
        update={
            "coverage": measured.metrics["test_balanced"]["coverage"].value,
            "accuracy": measured.metrics["test_balanced"]["selective_accuracy"].value,
            "data": manifest.verdict.data.replace("measured on validation", "measured on test"),
        }
    )
    assert measured.verdict == expected
    groups = measured.subgroups
    assert groups is not None
    assert groups.data == "test"
    assert sum(groups.accuracy[f"light: {part}"].samples for part in ("low", "middle", "high")) == TEST
    assert {emotion: recall.samples for emotion, recall in groups.recall.items()} == {
        "neutral": TEST // 2,
        "happiness": TEST // 2,
    }
    assert "skin tone" in groups.not_measured

    with pytest.raises(ValueError, match=r"no split 'other'; astronauts has test"):
        export_figures(tmp_path, repository, "expressnet_moe", split="other")
    with pytest.raises(ValueError, match=r"figures need a test split"):
        export_figures(tmp_path, repository, "expressnet_moe", split="held-out")
    with (repository / "expressnet_moe/1/model.pt").open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelFileError, match="its manifest says"):
        export_figures(tmp_path, repository, "expressnet_moe")


def test_a_second_export_gives_the_same_files(dataset: Dataset, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "yunet", tmp_path / "models/yunet")
    train(tiny_config(epochs=1), dataset, tmp_path / "run", threads=1)
    manifests = []
    for _ in range(2):
        exporting.export_classifier(tmp_path / "run", tmp_path, tmp_path / "models")
        manifests.append(read_classifier(tmp_path / "models"))
    assert manifests[0] == manifests[1]


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
    pictures = PixelPictures(np.concatenate([faces[:8], blank]))
    crops = crop_each(pictures, cropper, Input(size=size, crop=crop))
    assert [each is not None for each in crops] == [True] * 8 + [False]
    realigned = PixelPictures(cut_out(crops, size).transpose(0, 2, 3, 1))
    again = measure_crop(realigned, cropper, size=size)
    assert again.left_eye == pytest.approx(crop.left_eye, abs=0.03)
    assert again.mouth == pytest.approx(crop.mouth, abs=0.03)
    left_eyes = [
        measure_crop(pictures.choose(np.array([row])), cropper, size=size).left_eye
        for pictures in (PixelPictures(faces[:8]), realigned)
        for row in range(8)
    ]
    assert np.std(left_eyes[8:], axis=0).max() < np.std(left_eyes[:8], axis=0).max()
