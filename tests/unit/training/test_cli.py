"""The training commands as a user types them, from a folder of pictures to a report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from service.cli import app as service_app
from service.settings import Settings
from tests.unit.training.made_up import (
    noise,
    tiny_config,
    write_class_folders,
    write_fer2013,
    write_picture,
)
from training.checkpoint import load_trained
from training.cli import app
from training.settings import PRESETS

REPOSITORY = Settings().model_repository


def expressnet(*arguments: str | Path) -> tuple[int, str, str]:
    """Run the command. Returns (exit code, stdout, stderr)."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in `data`, a configuration in `tiny.yaml`, and a training run in `run`."""
    folder = tmp_path_factory.mktemp("cli")
    splits = {"train/happy": 24, "train/sad": 24, "test/happy": 6, "test/sad": 6}
    write_class_folders(folder / "data", splits)
    config = tiny_config(dataset="folder", epochs=1).model_dump(mode="json")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    code, stdout, _ = expressnet(
        "train", folder / "tiny.yaml", "--data", folder / "data", "--out", folder / "run"
    )
    assert code == 0, stdout
    return folder


def test_the_compact_preset_is_trained_with_other_settings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = {"network.backbone_size": 64, "network.features": 8, "batch": 12, "epochs": 1, "dataset": "folder"}
    given = [f"--set={key}={value}" for key, value in tiny.items()]
    code, stdout, stderr = expressnet("train", "--data", folder / "data", *given)
    assert code == 0, stderr
    assert load_trained(tmp_path / "runs/compact").config.network.name == "compact"
    assert '"epoch": 1' in stdout


def test_a_recipe_is_repeated(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(dataset="folder", epochs=1).model_dump(mode="json", exclude={"seed"})
    recipe = {"stages": [{"name": "only", "preset": "compact", "settings": config}]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    command = ("train", "mine.yaml", "--data", folder / "data", "--set", "network.features=6")
    for expected in (True, False):
        code, stdout, stderr = expressnet(*command)
        assert code == 0, stderr
        assert ('"epoch": 1' in stdout) is expected
    assert load_trained(tmp_path / "runs/mine/only").config.network.model_dump()["features"] == 6


def test_a_recipe_is_packed_with_the_packages_of_another_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(command: list[str]) -> subprocess.CompletedProcess[str]:
        versions.append(command[command.index("--python-version") + 1])
        (Path(command[command.index("--target") + 1]) / "one.py").touch()
        assert f"kornia=={version('kornia')}" in command
        return subprocess.CompletedProcess(command, returncode=versions.count("9.9"))

    versions: list[str] = []
    monkeypatch.setattr("training.pack.subprocess", SimpleNamespace(run=install))
    write_fer2013(tmp_path / "fer", [("Training", noise(number)) for number in range(8)])
    (tmp_path / "mine.yaml").write_text("stages: [{name: only, preset: paper}]")
    command = ("pack", tmp_path / "mine.yaml", "--data", tmp_path / "fer", "--out", tmp_path / "pack.pyz")
    code, stdout, stderr = expressnet(*command, "--set", "epochs=2", "--minutes", "7")
    assert code == 0, stderr
    assert stdout.startswith(f"{tmp_path}/pack.pyz written: ")
    with ZipFile(tmp_path / "pack.pyz") as archive:
        assert {"lib/one.py", "lib/training/packed.py", "recipes/mine.yaml"} < set(archive.namelist())
        plan = json.loads(archive.read("plan.json"))
    assert (plan["minutes"], plan["changes"]) == (7, {"epochs": 2})
    code, _, stderr = expressnet(*command, "--python", "9.9")
    assert (code, stderr) == (1, "expressnet: pip cannot install the packages for Python 9.9\n")
    assert versions == [f"{sys.version_info.major}.{sys.version_info.minor}", "9.9"]


def test_a_run_is_evaluated(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.calibrate.SELECTIVE_ACCURACY", 0.0)
    code, stdout, _ = expressnet(
        *("evaluate", "--data", folder / "data", "--run", folder / "run", "--out", tmp_path),
        *("--no-robustness", "--device", "cpu"),
    )
    assert code == 0
    assert f"{tmp_path}/report.md" in stdout.splitlines()


def test_a_run_is_compared_with_itself(folder: Path) -> None:
    command = ("compare", folder / "run", folder / "run/best.ckpt", "--data", folder / "data")
    code, stdout, _ = expressnet(*command)
    assert code == 0
    assert "Only A is right on 0 rows, only B on 0. McNemar's test: p = 1." in stdout
    code, stdout, _ = expressnet(*command, "--split", "test", "--json")
    assert code == 0
    found = json.loads(stdout)
    assert (found["split"], found["accuracy"]["samples"], found["accuracy"]["difference"]) == ("test", 12, 0)


def test_a_run_learns_from_recorded_answers(folder: Path, tmp_path: Path) -> None:
    config = tiny_config(dataset="folder", epochs=1, loss={"distillation": 1.0}).model_dump(mode="json")
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(config))
    answers = tmp_path / "answers.pt"
    same = (tmp_path / "student.yaml", "--data", folder / "data", "--device", "cpu")
    code, stdout, _ = expressnet("teach", *same, "--teacher", folder / "run", "--out", answers)
    assert code == 0
    assert stdout.splitlines()[-1] == f"{answers} written: 36 answers"
    code, _, _ = expressnet("train", *same, "--out", tmp_path / "run", "--answers", answers)
    assert code == 0


def test_a_run_is_adapted(folder: Path, tmp_path: Path) -> None:
    labelled = folder / "data" / "train"
    code, stdout, _ = expressnet(
        "adapt", "--run", folder / "run", "--labelled", labelled, "--out", tmp_path, "--epochs", "1"
    )
    assert code == 0
    assert "| fine-tuned |" in stdout


def test_faces_are_prepared(astronaut: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "data/happy").mkdir(parents=True)
    Image.fromarray(astronaut).save(tmp_path / "data/happy/photo.png")
    command = ("prepare", "--data", tmp_path / "data", "--out", tmp_path / "out", "--repository", REPOSITORY)
    code, stdout, _ = expressnet(*command, "--licence", "CC0")
    assert code == 0
    assert "Licence: CC0" in stdout
    assert len(list(tmp_path.glob("out/training/happiness/*.png"))) == 1
    code, _, stderr = expressnet(*command, "--size", "40")
    assert code == 1
    assert stderr.startswith("expressnet: ")
    assert "begun with other options (crop)" in stderr


def test_a_photo_is_explained(folder: Path, astronaut: NDArray[np.uint8], tmp_path: Path) -> None:
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    code, stdout, _ = expressnet(
        *("explain", "--run", folder / "run", "--photo", tmp_path / "photo.png"),
        *("--out", tmp_path / "out.png", "--repository", REPOSITORY),
    )
    assert code == 0
    assert stdout.strip() == str(tmp_path / "out.png")
    assert (tmp_path / "out.png").is_file()


def test_an_exported_checkpoint_is_smaller_and_answers_like_the_run(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "shared.ckpt"
    code, stdout, _ = expressnet("export", "checkpoint", "--run", folder / "run", "--out", out)
    assert code == 0
    assert stdout.strip() == f"{out} written"
    assert out.stat().st_size < 0.75 * (folder / "run/best.ckpt").stat().st_size
    halved, original = load_trained(out), load_trained(folder / "run")
    assert (halved.config, halved.emotions, halved.epoch) == (
        original.config,
        original.emotions,
        original.epoch,
    )
    images = torch.rand(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            halved.network(images).logits, original.network(images).logits, atol=5e-3, rtol=0
        )


def test_pictures_without_faces_are_not_exported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.calibrate.SELECTIVE_ACCURACY", 0.0)
    shutil.copytree(REPOSITORY / "yunet", tmp_path / "yunet")
    code, _, stderr = expressnet(
        *("export", "classifier", "--data", folder / "data", "--run", folder / "run"),
        *("--repository", tmp_path),
    )
    assert code == 1
    assert "finds no face" in stderr
    assert not (tmp_path / "expressnet_moe").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--data", "{data}", "--out", "{tmp}/run", "--dataset", "cats"), "cats"),
        (("train", "{tiny}", "--data", "{tmp}/none", "--out", "{tmp}/run"), "none"),
        (("train", "{tiny}", "--data", "{data}", "--out", "{run}"), "has a run; --resume continues it"),
        (("train", "small", "--data", "{data}"), "presets are attention, compact, paper"),
        (("train", "--data", "{data}", "--set", "epoch=3"), "epoch is not a setting; similar: epochs"),
        (("train", "{recipe}", "--data", "{data}", "--teacher", "{tiny}"), "names its own"),
        (("evaluate", "--data", "{data}", "--run", "{tmp}", "--out", "{tmp}/out"), "best.ckpt"),
        (("evaluate", "--data", "{data}", "--run", "{tiny}", "--out", "{tmp}/out"), "not a checkpoint"),
        (("export", "figures", "--data", "{data}", "--name", "yunet"), "not a classifier"),
        (("export", "figures", "--data", "{data}", "--repository", "{tmp}"), "manifest.json is missing"),
        (("explain", "--photo", "{tiny}", "--out", "{tmp}/out.png"), "not an image"),
        (("compare", "{tiny}", "{tiny}", "--data", "{data}"), "not a checkpoint"),
        (("compare", "none", "none", "--data", "{data}"), "none is neither a checkpoint"),
        (("adapt", "--run", "{run}", "--out", "{tmp}/out"), "needs a folder"),
        (
            ("evaluate", "--data", "{data}", "--run", "{run}", "--out", "{tmp}/out", "--device", "cuda"),
            "no GPU",
        ),
        (("compare", "{run}", "{run}", "--data", "{data}", "--device", "cuda"), "no GPU"),
        (
            ("adapt", "--run", "{run}", "--unlabelled", "{data}", "--out", "{tmp}", "--device", "cuda"),
            "no GPU",
        ),
        (
            ("train", "{tiny}", "--data", "{data}", "--out", "{tmp}/run", "--device", "cuda"),
            "no GPU",
        ),
    ],
)
def test_an_error_that_a_user_can_fix_is_one_sentence(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    places = {"data": folder / "data", "run": folder / "run", "tiny": folder / "tiny.yaml", "tmp": tmp_path}
    places["recipe"] = PRESETS.parent / "recipes/served.yaml"
    code, _, stderr = expressnet(*(argument.format(**places) for argument in arguments))
    assert code == 1
    assert stderr.startswith("expressnet: ")
    assert message in stderr
    assert "Traceback" not in stderr


def test_a_bad_picture_stops_training_unless_skipping_is_allowed(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(folder / "data", data)
    write_picture(data / "train/happy/torn.png", 99)
    (data / "train/happy/torn.png").write_bytes((data / "train/happy/torn.png").read_bytes()[:200])
    command = ("train", folder / "tiny.yaml", "--data", data, "--out", tmp_path / "run")
    code, _, stderr = expressnet(*command)
    assert code == 1
    assert "torn.png" in stderr
    code, stdout, _ = expressnet(*command, "--skip-bad")
    assert code == 0
    assert "torn.png" in stdout


def test_models_are_listed_and_verified(tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(service_app, ["models", "--repository", str(REPOSITORY)])
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        "expressnet_moe",
        "yunet",
        "yunet_mtcnn",
    ]
    assert listed.stdout.count("verified") == 3

    shutil.copytree(REPOSITORY / "yunet", tmp_path / "yunet")
    with (tmp_path / "yunet/1/model.pt").open("ab") as file:
        file.write(b"!")
    broken = runner.invoke(service_app, ["models", "--repository", str(tmp_path)])
    assert broken.exit_code == 1
    assert "its manifest says" in broken.stderr

    empty = runner.invoke(service_app, ["models", "--repository", str(tmp_path / "none")])
    assert empty.exit_code == 1
    assert f"{tmp_path / 'none'} holds no models; set EXPRESSNET_MODEL_REPOSITORY" in empty.stderr
