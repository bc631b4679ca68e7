"""Runs the stages of a recipe, each one once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch.distributed
from lightning_fabric.utilities.rank_zero import rank_zero_only

from service.core.manifest import digest, manifest_path
from training.atomic import replacing
from training.average import average
from training.checkpoint import load_trained
from training.config import RunConfig, differences
from training.datasets import load
from training.datasets.card import labels_sha256
from training.datasets.faces import Dataset
from training.device import DeviceName
from training.lineage import Start, content_sha256
from training.recipe import AverageStage, GivenFile, Recipe, TrainingStage, configurations, read_recipe
from training.train import train

RECORD = "stage.json"


def repeat(
    path: Path,
    data: Path,
    out: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    device: DeviceName = "auto",
    devices: int = 1,
    threads: int | None = None,
    compiled: bool = False,
    skip_bad: bool = False,
    minutes: float | None = None,
) -> None:
    """Run the recipe `path` into a folder for each stage below `out`.

    A finished stage is skipped, an interrupted one resumes after its last epoch. `stage.json` of a stage has
    what it was made from and, when it is finished, the SHA-256 of its result. changes: of the settings of
    every stage, by dotted keys. minutes: of each run, as in `train`.
    Raises `ValueError` before the first stage runs when the recipe does not fit together, a file is missing
    or has another digest; and at a stage that was made from something else, or whose result has changed.
    """
    recipe = read_recipe(path)
    configs = configurations(recipe, changes or {})
    files = _located(recipe, path.parent)
    run = partial(train, resume=True, device=device, devices=devices, threads=threads, compiled=compiled)
    results: dict[str, list[Path]] = {}

    def of(reference: GivenFile | str) -> list[Path]:
        return results[reference] if isinstance(reference, str) else [files[reference]]

    @cache
    def dataset_of(kind: Any, votes: Any) -> Dataset:
        return load(kind, data, skip_bad=skip_bad, ferplus_votes=votes)

    for stage in recipe.stages:
        folder = out / stage.name
        if isinstance(stage, TrainingStage):
            config, start = configs[stage.name], stage.start
            dataset = dataset_of(config.dataset, config.ferplus_votes)
            begun = Start(
                weights=None if start is None else of(start)[0],
                weights_kind=start.kind if isinstance(start, GivenFile) else None,
                teachers=tuple(teacher for each in stage.teachers for teacher in of(each)),
            )
            results[stage.name] = []
            for seed in stage.seeds:
                seeded = config.model_copy(update={"seed": seed})
                place = folder / f"seed{seed}" if len(stage.seeds) > 1 else folder
                work = partial(run, seeded, dataset, place, start=begun, minutes=minutes)
                _run_once(place, _inputs(seeded, begun, dataset), place / "best.ckpt", work)
                results[stage.name].append(place / "best.ckpt")
        elif isinstance(stage, AverageStage):
            members = [member for name in stage.average for member in of(name)]
            digests = [content_sha256(member) for member in members]
            config = load_trained(members[0]).config
            dataset = dataset_of(config.dataset, config.ferplus_votes)
            work = partial(average, members, dataset, folder, device=device)
            _run_once(folder, {"averaged_sha256": digests}, folder / "best.ckpt", rank_zero_only(work))
            results[stage.name] = [folder / "best.ckpt"]
        else:
            (network,) = of(stage.export)
            inputs = {"classifier_sha256": content_sha256(network), "model": stage.model}
            work = partial(_export, network, data, folder, stage.model, device=device, skip_bad=skip_bad)
            _run_once(folder, inputs, manifest_path(folder, stage.model), work)


def _run_once(folder: Path, inputs: dict[str, Any], result: Path, work: Callable[[], object]) -> None:
    """Do the work of a stage unless it is done. Raises `ValueError` for other inputs or another result."""
    path, inputs = folder / RECORD, json.loads(json.dumps(inputs))
    record = json.loads(path.read_text()) if path.is_file() else {"inputs": inputs}
    if different := differences(record["inputs"], inputs):
        raise ValueError(
            f"{folder} was made from something else: {'; '.join(different)}; "
            "remove it, or choose another folder"
        )
    if "sha256" in record:
        found = digest(result) if result.is_file() else "no file"
        if found != record["sha256"]:
            raise ValueError(f"{result} has the SHA-256 {found}, and {path} names {record['sha256']}")
        _say(f"{folder} is finished")
        return
    _say(f"{folder}:")
    _write(path, record)
    work()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the next stage reads what the first process has written
    _write(path, record | {"sha256": digest(result)})


@rank_zero_only
def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial_file:
        partial_file.write_text(json.dumps(record, indent=1))


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _inputs(config: RunConfig, start: Start, dataset: Dataset) -> dict[str, Any]:
    return {
        "settings": config.model_dump(mode="json"),
        "weights_sha256": None if start.weights is None else content_sha256(start.weights),
        "weights_kind": start.weights_kind,
        "teachers_sha256": [content_sha256(teacher) for teacher in start.teachers],
        "labels_sha256": labels_sha256(dataset.training),
    }


def _located(recipe: Recipe, folder: Path) -> dict[GivenFile, Path]:
    """The files of a recipe, with their digests checked."""
    return {
        file: file.located(folder)
        for stage in recipe.stages
        if isinstance(stage, TrainingStage)
        for file in (stage.start, *stage.teachers)
        if isinstance(file, GivenFile)
    }


@rank_zero_only
def _export(
    network: Path, data: Path, folder: Path, model: str, *, device: DeviceName, skip_bad: bool
) -> None:
    """A repository with the served detector and this classifier."""
    # Here, because a pack does without the packages of exports.
    from service.settings import Settings
    from training.export_classifier import export_classifier

    settings = Settings()
    shutil.copytree(
        settings.model_repository / settings.detector, folder / settings.detector, dirs_exist_ok=True
    )
    export_classifier(network, data, folder, name=model, device=device, skip_bad=skip_bad)
