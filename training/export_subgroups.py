"""Measures the subgroups of a classifier with its served file, and writes them into its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from service.core.manifest import TORCHSCRIPT, manifest_path, verified_model_path
from training.datasets import DatasetKind, load
from training.evaluation.networks import read_classifier, recorded_config, served_answers
from training.evaluation.rows import rows_of, split_of
from training.evaluation.subgroups import for_manifest
from training.repository import write_manifest
from training.rows import refuse_other_emotions


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

    kind: of the data set, by default the training's. split: as in `split_of`.
    Raises `ValueError` when the model is not a classifier or the split is missing.
    """
    manifest = read_classifier(repository, name, version)
    config = recorded_config(manifest)
    path = verified_model_path(repository, manifest, TORCHSCRIPT)
    dataset = load(
        cast(DatasetKind, kind or config.dataset), data, skip_bad=skip_bad, ferplus_votes=config.ferplus_votes
    )
    refuse_other_emotions(manifest.labels, dataset)
    split = split_of(dataset, split)
    rows = rows_of(dataset, split, config)
    measured = for_manifest(split, served_answers(path, rows, manifest.input.size), rows)
    beside = manifest_path(repository, name, version)
    target = beside if version is not None and beside.exists() else manifest_path(repository, name)
    write_manifest(target, manifest.model_copy(update={"subgroups": measured}))
    return target
