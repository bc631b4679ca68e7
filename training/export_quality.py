"""Writes the limits of quality into a classifier's manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from service.core.errors import ModelFileError
from service.core.manifest import (
    TORCHSCRIPT,
    ClassifierManifest,
    QualityLimits,
    manifest_path,
    verified_model_path,
)
from training.datasets import DatasetKind, load
from training.datasets.faces import Dataset, LabelledFaces
from training.evaluation.networks import read_classifier, recorded_config
from training.evaluation.plots import draw_quality
from training.evaluation.poor_pictures import ServedModelProbe
from training.evaluation.quality import choose_limits, confirm, run_probe
from training.framing import PhotoCropper
from training.repository import write_manifest
from training.rows import refuse_other_emotions, validation_rows


def export_quality(
    data: Path,
    repository: Path,
    *,
    name: str,
    version: str | None = None,
    kind: str | None = None,
    plot: Path | None = None,
    skip_bad: bool = False,
) -> list[str]:
    """Choose the limits on the run's validation rows, confirm them on the first test split, and write both.

    Returns tables of the bands and the confirmed figures, line by line.
    Raises `ValueError` when the model is not a classifier of this project, or the data set does not load.
    """
    try:
        manifest = read_classifier(repository, name, version)
        path = verified_model_path(repository, manifest, TORCHSCRIPT)
        cropper = PhotoCropper(repository)
    except ModelFileError as error:
        raise ValueError(str(error)) from error
    config = recorded_config(manifest)
    dataset = load(
        cast(DatasetKind, kind or config.dataset), data, skip_bad=skip_bad, ferplus_votes=config.ferplus_votes
    )
    refuse_other_emotions(manifest.labels, dataset)
    classifier = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    held_out = validation_rows(dataset, config)
    complete, limits = with_quality(manifest, classifier, cropper, dataset, held_out)
    beside = manifest_path(repository, name, manifest.version)
    write_manifest(beside if beside.exists() else manifest_path(repository, name), complete)
    if plot is not None:
        draw_quality(limits, plot)
    return [*tables(limits), *_confirmed(complete)]


def with_quality(
    manifest: ClassifierManifest,
    classifier: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]],
    cropper: PhotoCropper,
    dataset: Dataset,
    held_out: LabelledFaces,
) -> tuple[ClassifierManifest, QualityLimits]:
    """(the manifest with limits, the limits), chosen on `held_out` and confirmed on the first test split."""
    threshold = manifest.verdict.threshold
    limits = choose_limits(
        run_probe(ServedModelProbe(classifier, manifest, cropper, held_out)),
        threshold,
        f"validation rows of {dataset.name}, clean and corrupted",
    )
    metrics = dict(manifest.metrics)
    for split, rows in list(dataset.tests.items())[:1]:
        confirmed = confirm(
            run_probe(ServedModelProbe(classifier, manifest, cropper, rows)), limits, threshold
        )
        metrics |= {f"{split}_{how}": figures for how, figures in confirmed.items()}
    verdict = manifest.verdict.model_copy(update={"quality": limits})
    return manifest.model_copy(update={"verdict": verdict, "metrics": metrics}), limits


def tables(limits: QualityLimits) -> list[str]:
    """The bands as Markdown: docs/reference/quality-bands.md."""
    lines = [limits.rule, ""]
    for limit in limits.limits:
        edge = "no limit"
        if limit.min is not None:
            edge = f"at least {limit.min:g}"
        if limit.max is not None:
            edge = f"at most {limit.max:g}"
        lines += [
            f"## {limit.code}: {limit.measure}, {edge}",
            "",
            "| from | below | faces | accuracy | confidence | certain | accuracy of the certain |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {b.low:.3g} | {b.high:.3g} | {b.samples} | {b.accuracy:.1%} | {b.confidence:.1%} "
                f"| {b.certain:.1%} | {b.certain_accuracy:.1%} |"
                for b in limit.bands
            ),
            "",
        ]
    return lines


def _confirmed(manifest: ClassifierManifest) -> list[str]:
    return [
        f"{split}, {figure}: {metric.value:.1%} of {metric.samples}"
        for split, figures in manifest.metrics.items()
        if split.endswith(("_quality", "_quality_corrupted", "_quality_not_faces"))
        for figure, metric in figures.items()
    ]
