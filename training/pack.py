"""Packs recipes, their data, the code and its packages into one file, for a machine without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZIP_LZMA, ZIP_STORED, ZipFile

import yaml

import service
import training
from training import launch
from training.atomic import replacing
from training.checkpoint import checkpoint_file
from training.datasets import ferplus
from training.datasets.fer2013 import write_small
from training.lineage import checkout, content_sha256
from training.recipe import GivenFile, Recipe, TrainingStage, configurations, read_recipe

# What training imports beside torch, numpy and what they need themselves.
PACKAGES = (
    *("annotated-types", "kornia", "kornia_rs", "lightning-fabric", "lightning-utilities", "packaging"),
    *("pillow", "pydantic", "pydantic_core", "pyyaml", "rich", "typing_extensions", "typing-inspection"),
)
METADATA = "Metadata-Version: 2.1\nName: expressnet-training\nVersion: {0}\n"


def pack(
    recipes: Sequence[Path],
    data: Path,
    out: Path,
    packages: Path,
    *,
    minutes: float,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Write a file that `python3 FILE OUT` runs: each recipe in a process of its own, all at once.

    packages: a folder with installed `PACKAGES`. minutes: for everything, answers and files included.
    changes: of the settings of every stage. data: FER-2013's CSV file, with FER+'s votes if present.
    Raises `ValueError` for recipes that do not fit, and `DatasetError`.
    """
    known = {path.stem: read_recipe(path) for path in recipes}
    if len(known) < len(recipes):
        raise ValueError("recipes need different names")
    commit, changed = checkout(Path(training.__file__).parent)
    plan = {"minutes": minutes, "changes": changes or {}, "commit": commit, "changed": changed}
    with (
        TemporaryDirectory() as folder,
        replacing(out) as partial,
        ZipFile(partial, "w", ZIP_LZMA) as archive,
    ):
        # Python itself cannot read LZMA.
        archive.write(launch.__file__, "__main__.py", ZIP_STORED)
        archive.writestr("plan.json", json.dumps(plan))
        for path in recipes:
            recipe = _with_files(known[path.stem], path.parent, changes or {}, archive)
            archive.writestr(
                f"recipes/{path.name}", yaml.safe_dump(recipe.model_dump(mode="json", exclude_defaults=True))
            )
        small = write_small(data, Path(folder))
        archive.write(small, f"data/{small.name}")
        if (data / ferplus.FILE).is_file():
            archive.write(data / ferplus.FILE, f"data/{ferplus.FILE}")
        for module in (service, training):
            root = Path(module.__file__ or "").parent
            for path in sorted([*root.rglob("*.py"), *root.glob("presets/*.yaml")]):
                archive.write(path, f"lib/{root.name}/{path.relative_to(root)}")
        name = "expressnet-training"
        archive.writestr(f"lib/{name.replace('-', '_')}.dist-info/METADATA", METADATA.format(version(name)))
        for path in sorted(packages.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                archive.write(path, f"lib/{path.relative_to(packages)}")


def install(folder: Path, python: str) -> None:
    """Install `PACKAGES` into a folder, in the versions of this environment, for a Python such as 3.12.

    Raises `ValueError` when pip fails.
    """
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"),
        *("--only-binary", ":all:", "--python-version", python, "--target", str(folder)),
        *(f"{name}=={version(name)}" for name in PACKAGES),
    ]
    if subprocess.run(command).returncode:
        raise ValueError(f"pip cannot install the packages for Python {python}")


def _with_files(recipe: Recipe, folder: Path, changes: Mapping[str, Any], archive: ZipFile) -> Recipe:
    """Write the files of a recipe into the archive. Returns the recipe with their places in it."""
    for config in configurations(recipe, changes).values():
        if config.dataset != "fer2013":
            raise ValueError(f"a pack has fer2013, and a recipe needs {config.dataset}")

    def placed(given: GivenFile | str | None) -> GivenFile | str | None:
        if not isinstance(given, GivenFile):
            return given
        path = checkpoint_file(given.located(folder))
        if path.suffix not in (".ckpt", ".pt", ".pth"):
            raise ValueError(f"a pack has checkpoints and state dicts, not {path}")
        place = f"files/{content_sha256(path)[:16]}{path.suffix}"
        if f"recipes/{place}" not in archive.namelist():
            archive.write(path, f"recipes/{place}")
        return given.model_copy(update={"file": Path(place)})

    stages = []
    for stage in recipe.stages:
        if not isinstance(stage, TrainingStage):
            raise ValueError(f"a pack only trains: {stage.name} is another stage")
        files = {"start": placed(stage.start), "teachers": tuple(map(placed, stage.teachers))}
        stages.append(stage.model_copy(update=files))
    return Recipe(stages=tuple(stages))
