"""A pack: one file, run by a Python that has nothing but torch and numpy."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import pytest
import torch
import yaml
from packaging.requirements import Requirement

from tests.unit.training.made_up import noise, tiny_config, write_fer2013
from training import pack as packing
from training import packed
from training.checkpoint import load_trained
from training.datasets.card import labels_sha256
from training.datasets.fer2013 import load_fer2013
from training.evaluation.predict import predict
from training.models import build
from training.rows import training_rows

SETTINGS = tiny_config().model_dump(mode="json")
del SETTINGS["seed"]
STAGE: dict[str, Any] = {"name": "network", "preset": "compact", "settings": SETTINGS}
COUNTS = {"Training": 48, "PublicTest": 12}


def needed(name: str, found: set[str]) -> set[str]:
    """A distribution and all that it needs."""
    if name not in found:
        found.add(name)
        for each in map(Requirement, distribution(name).requires or ()):
            if each.marker is None or each.marker.evaluate({"extra": ""}):
                needed(each.name, found)
    return found


def copy_of(names: set[str], folder: Path, *, links: bool = False) -> Path:
    """A folder with installed distributions."""
    for name in names:
        for top in {file.parts[0] for file in distribution(name).files or ()} - {"..", "__pycache__"}:
            source = Path(str(distribution(name).locate_file(top)))
            if links:
                (folder / top).symlink_to(source)
            elif source.is_dir():
                shutil.copytree(source, folder / top, dirs_exist_ok=True)
            else:
                shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(usage, noise(number)) for usage, count in COUNTS.items() for number in range(count)]
    return write_fer2013(tmp_path_factory.mktemp("data") / "fer", rows)


@pytest.fixture(scope="module")
def packed_file(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    start = build(tiny_config().network, emotions=8, label_emotions=7).state_dict()
    torch.save(start, folder / "start.pt")
    stage = STAGE | {"start": {"file": "start.pt"}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"stages": [stage]}))
    (folder / "lib").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing, "ZIP_LZMA", ZIP_STORED)  # LZMA takes half a minute
        packing.pack(
            [folder / "tiny.yaml"],
            data,
            folder / "tiny.pyz",
            copy_of(set(packing.PACKAGES), folder / "lib"),
            minutes=10,
            changes={"measure_tests": True},
        )
    shutil.rmtree(folder / "lib")
    return folder / "tiny.pyz"


@pytest.fixture(scope="module")
def out(packed_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pack writes."""
    bare = copy_of(needed("numpy", needed("torch", set())), tmp_path_factory.mktemp("bare"), links=True)
    out = tmp_path_factory.mktemp("elsewhere") / "out"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    base = sys._base_executable  # type: ignore[attr-defined]  # the Python of the virtual environment, without its packages
    done = subprocess.run(
        [base, "-W", "ignore", packed_file, out],
        env=environment | {"PYTHONPATH": str(bare), "PYTHONNOUSERSITE": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "tiny: " in done.stdout
    assert "matched the network" in done.stdout
    return out


def joined(out: Path, name: str, folder: Path) -> Path:
    parts = sorted(out.glob(f"{name}.tar.xz.*"))
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def test_a_pack_trains_and_writes_figures_logits_and_weights(out: Path, data: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == ["tiny-network.json", "tiny-network.tar.xz.00"]
    figures = json.loads((out / "tiny-network.json").read_text())
    assert [epoch["epoch"] for epoch in figures["epochs"]] == [1, 2]
    assert figures["minutes"] == 10
    run = joined(out, "tiny-network", tmp_path)
    trained = load_trained(run)
    assert figures["chosen_on_validation"]["epoch"] == trained.epoch
    assert figures["chosen_on_the_test_as_by_the_authors"]["PublicTest"]["PublicTest"] == max(
        epoch["PublicTest"] for epoch in figures["epochs"]
    )

    dataset = load_fer2013(data, published=COUNTS)
    parts = dict(zip(("training", "held-out"), training_rows(dataset, trained.config), strict=True))
    recorded = json.loads((run / "data.json").read_text())["labels_sha256"]
    assert recorded == {split: labels_sha256(rows) for split, rows in parts.items()}
    logits = np.load(run / "logits.npz")
    assert logits["names"].tolist() == [f"fer2013.csv line {number}" for number in range(2, 62)]
    assert logits["splits"].tolist() == ["training"] * 48 + ["PublicTest"] * 12
    # Six bits of a grey value, in place of eight, change little.
    answers = predict(trained.network, dataset.tests["PublicTest"])
    np.testing.assert_allclose(logits["logits"][48:], answers.logits, atol=0.05)
    assert logits["label"].shape == (60, 7)


def test_large_results_are_cut_into_parts(
    out: Path, packed_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ZipFile(packed_file) as archive:
        archive.extractall(
            tmp_path, [name for name in archive.namelist() if name.startswith(("data/", "recipes/"))]
        )
    assert len(list((tmp_path / "recipes").rglob("*.pt"))) == 1
    run = joined(out, "tiny-network", tmp_path)
    monkeypatch.setattr(packed, "FILE_BYTES", 2000)
    monkeypatch.setattr(packed, "BLOCK_BYTES", 30_000)
    packed.write_results(run, tmp_path / "data", tmp_path, "again", {})
    parts = sorted(tmp_path.glob("again.tar.xz.*"))
    assert len(parts) > 3
    assert all(part.stat().st_size <= 2000 for part in parts)
    again = torch.load(joined(tmp_path, "again", tmp_path) / "best.ckpt", weights_only=True)["average"]
    assert {value.dtype for value in again.values() if value.dim() > 1} == {torch.bfloat16}
    assert load_trained(tmp_path / "again").epoch == load_trained(run).epoch


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([STAGE, {"name": "models", "export": "network"}], "only trains: models"),
        ([STAGE | {"settings": {"dataset": "rafdb"}}], "a recipe needs rafdb"),
        ([STAGE | {"start": {"file": "weights.h5"}}], "not .*weights.h5"),
    ],
)
def test_a_recipe_that_does_not_fit_a_pack_is_refused(
    stages: object, message: str, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights.h5").touch()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"stages": stages}))
    with pytest.raises(ValueError, match=message):
        packing.pack([tmp_path / "recipe.yaml"], data, tmp_path / "pack.pyz", tmp_path, minutes=1)
    assert not (tmp_path / "pack.pyz").exists()
