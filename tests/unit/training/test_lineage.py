"""The record of what a run is made from."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training.made_up import noise
from training import lineage
from training.datasets.card import labels_sha256
from training.datasets.faces import Dataset, LabelledFaces, PixelPictures
from training.lineage import Start, checkout, versions, write_data_card


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with a package, and an environment beside it that is not tracked."""
    for package in ("training", "env/training"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    git(tmp_path, "init")
    git(tmp_path, "add", "training")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_the_commit_is_that_of_the_package_and_not_of_the_current_folder(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert checkout(project / "training") == (git(project, "rev-parse", "HEAD"), False)
    (project / "training" / "__init__.py").write_text("changed")
    assert checkout(project / "training") == (git(project, "rev-parse", "HEAD"), True)


def test_an_environment_in_a_checkout_of_something_else_has_no_commit(project: Path) -> None:
    assert checkout(project / "env" / "training") == (None, False)


def test_without_git_there_is_no_commit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert checkout(project / "training") == (None, False)


def test_an_installed_package_is_recorded_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "checkout", lambda package: (None, False))
    found = versions(Start())
    assert found["commit"] is None
    assert found["package"]


def test_the_data_card_has_the_rows_of_the_run(tmp_path: Path) -> None:
    labels = np.array([0, 1, 1, 3])
    rows = LabelledFaces.singly_labelled(
        PixelPictures(np.stack([noise(label) for label in labels])),
        names=np.array(["a", "b", "c", "d"]),
        labels=labels,
        group=labels,
    )
    dataset = Dataset("mine", ("neutral", "happiness"), (), rows, {}, ("CC0",), ("a problem",))
    training, held_out = rows.rows(np.arange(3)), rows.rows(np.array([3]))
    write_data_card(tmp_path, dataset, training, held_out)
    card = json.loads((tmp_path / "data.json").read_text())
    assert (card["dataset"], card["licences"], card["problems"]) == ("mine", ["CC0"], ["a problem"])
    assert card["faces"] == {"training": 3, "held-out": 1}
    assert card["distinct"] == {"training": 2, "held-out": 1}
    assert card["emotions"]["training"]["happiness"] == {"faces": 2, "votes": 0.6667}
    assert card["labels_sha256"]["held-out"] == labels_sha256(held_out)
    relabelled = replace(held_out, labels=np.array([4]))
    assert labels_sha256(relabelled) != labels_sha256(held_out)
