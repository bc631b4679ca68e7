"""Measures the subgroups of a classifier with its served file, and writes them into its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch

from service.core.manifest import (
    TORCHSCRIPT,
    ClassifierManifest,
    manifest_path,
    read_manifest,
    verified_model_path,
)
from training.datasets import DatasetKind, load
from training.datasets.faces import LabelledFaces
from training.evaluation.predict import Floats
from training.evaluation.subgroups import for_manifest
from training.repository import write_manifest
from training.rows import refuse_other_emotions

BATCH = 256


def export_subgroups(
    data: Path,
    repository: Path,
    name: str,
    *,
    version: str | None = None,
    kind: str | None = None,
    split: str | None = None,
    skip_bad: bool = False,
) -> Path:
    """Write the subgroups of one version into its manifest, and return the manifest's path.

    kind: of the data set, by default the training's. split: name of a test split, by default the first.
    Raises `ValueError` when the model is not a classifier or the split is missing.
    """
    manifest = read_manifest(repository, name, version)
    if not isinstance(manifest, ClassifierManifest):
        raise ValueError(f"{name} is a {manifest.kind}, not a classifier")
    path = verified_model_path(repository, manifest, TORCHSCRIPT)
    config = manifest.training.config
    dataset = load(
        cast(DatasetKind, kind or config["dataset"]),
        data,
        skip_bad=skip_bad,
        ferplus_votes=config.get("ferplus_votes", "all"),
    )
    refuse_other_emotions(manifest.labels, dataset)
    split = split or next(iter(dataset.tests), None)
    if split not in dataset.tests:
        raise ValueError(
            f"no split {split!r}; {dataset.name} has {', '.join(dataset.tests) or 'no test split'}"
        )
    rows = dataset.tests[split]
    measured = for_manifest(split, served_answers(path, rows, manifest.input.size), rows)
    beside = manifest_path(repository, name, version)
    target = beside if version is not None and beside.exists() else manifest_path(repository, name)
    write_manifest(target, manifest.model_copy(update={"subgroups": measured}))
    return target


@torch.inference_mode()
def served_answers(path: Path, rows: LabelledFaces, size: int) -> Floats:
    """Calibrated probabilities float32 [N,C] of a model file."""
    module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    parts = []
    for start in range(0, len(rows), BATCH):
        chosen = np.arange(start, min(start + BATCH, len(rows)))
        faces = torch.from_numpy(rows.pictures.read(chosen, size=size, channels=3))
        parts.append(module(faces)[0].numpy())
    answers: Floats = np.concatenate(parts)
    return answers
