"""The wheel of the service in new environments, away from the checkout: its commands find its models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray

from service import __version__
from tests.conftest import OPTIONAL, free_port
from tests.scenes import video
from tests.system.conftest import running

ROOT = Path(__file__).parents[2]
UV = (sys.executable, "-m", "uv", "--quiet")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that is built from the source distribution, so that it has no files of an earlier build."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [*UV, "build", "--python", sys.executable, "--no-build-isolation", "--out-dir", folder, ROOT],
        check=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_service_and_its_models_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "service",
        f"expressnet_service-{__version__}.dist-info",
    }
    listed = subprocess.run(
        ["git", "ls-files", "model_repository"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    models = {name.removeprefix("service/") for name in names if "/model_repository/" in name}
    assert models == set(listed.stdout.splitlines())


def interpreter(version: str) -> str:
    """The path of a Python of this version.

    A program on the path may be a shim of pyenv, which only prints how to choose a version.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for found in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))):
        if found and subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
            return str(found)
    pytest.skip(f"not available: Python {version}, {OPTIONAL}")


@pytest.fixture(scope="module", params=["3.11", "3.12", "3.13"])
def programs(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the programs of a new environment, which has the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*UV, "venv", "--no-project", "--python", interpreter(request.param), folder], check=True)
    subprocess.run(
        [*UV, "pip", "install", "--python", folder, "--constraint", ROOT / "constraints.txt", wheel],
        check=True,
    )
    return folder / "bin"


def test_the_installed_wheel_serves_and_answers_from_any_folder(
    programs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    astronaut: NDArray[np.uint8],
    astronaut_jpeg: bytes,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPRESSNET_PORT", str(free_port()))
    (tmp_path / "photo.jpg").write_bytes(astronaut_jpeg)
    video(tmp_path / "clip.mp4", dict.fromkeys(range(10), astronaut))

    def expressnet(*words: str) -> str:
        done = subprocess.run([programs / "expressnet", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert {model["name"] for model in json.loads(expressnet("models", "--json"))} == {
        path.parent.name for path in ROOT.glob("model_repository/*/manifest.json")
    }
    assert json.loads(expressnet("check", "--json"))["ok"]
    (face,) = json.loads(expressnet("predict", "photo.jpg"))["faces"]
    assert face["emotion"] == "happiness"
    expressnet("predict", "clip.mp4")
    assert "happiness" in (tmp_path / "clip.timeline.csv").read_text()
    with running(programs / "python") as gateway:
        (face,) = gateway.post(astronaut_jpeg).json()["faces"]
        assert face["emotion"] == "happiness"
        assert gateway.stop() == 0
    # The commands of training come with its own distribution. The service does not need torch.
    assert "train" not in expressnet("--help")
    without = subprocess.run([programs / "python", "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in without.stderr
