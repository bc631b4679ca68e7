"""Measures a served classifier on a test split, and writes the figures into its manifest."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from service.core.manifest import Metric, manifest_path
from service.core.priors import BALANCED
from training.calibrate import with_prior
from training.datasets.faces import PixelPictures
from training.datasets.splits import drop_near_duplicates
from training.evaluation.networks import load_served, read_classifier, recorded_config, served_answers
from training.evaluation.plots import draw_quality
from training.evaluation.poor_pictures import Probe
from training.evaluation.quality import confirm, under_shifts
from training.evaluation.rows import HELD_OUT, dataset_of, rows_of, split_of
from training.evaluation.subgroups import subgroups
from training.evaluation.tables import shown, table
from training.export_classifier import by_prior, verdict_figures
from training.framing import PhotoCropper, crop_each, cut_out
from training.repository import write_manifest


def export_figures(
    data: Path,
    repository: Path,
    name: str,
    *,
    version: str | None = None,
    kind: str | None = None,
    split: str | None = None,
    plot: Path | None = None,
    skip_bad: bool = False,
) -> list[str]:
    """Write figures, subgroups and the effect of the limits of quality, and return a table, line by line.

    The default version is the served one. kind: of the data set, by default the training's. split: by default
    the first test split. plot: picture to write, of the bands of quality that the limits were chosen by.
    Raises `ValueError` when the model is not a classifier of this project, or the test split is missing, and
    `ModelFileError` when a file of the model is missing or changed.
    """
    manifest = read_classifier(repository, name, version)
    module, cropper = load_served(repository, manifest), PhotoCropper(repository)
    answer = partial(served_answers, module, size=manifest.input.size)
    spec, verdict = manifest.input, manifest.verdict
    config = recorded_config(manifest)
    dataset = dataset_of(config, manifest.labels, data, kind, skip_bad=skip_bad, network=name)
    split = split_of(dataset, split)
    if split == HELD_OUT:
        raise ValueError(f"figures need a test split, and {dataset.name} has none here")
    rows = rows_of(dataset, split, config)

    crops = crop_each(rows.pictures, cropper, spec)
    whole = rows.rows(np.array([each is not None for each in crops], np.bool_))
    cut = replace(whole, pictures=PixelPictures(cut_out(crops, spec.size).transpose(0, 2, 3, 1)))
    parts = {
        split: rows,
        # Training rows contain no copies of test images, so these figures should hardly differ.
        f"{split}_without_copies": drop_near_duplicates(rows, dataset.training),
        # The same images with and without the gateway's crop show the cost of the crop.
        f"{split}_realigned": cut,
        f"{split}_realigned_whole": whole,
    }
    measured: dict[str, dict[str, Metric]] = {}
    for how, part in parts.items():
        if (part.majority >= 0).any():
            label_emotions = len(dataset.label_emotions)
            measured |= by_prior(how, answer(part), part, label_emotions, manifest.prior, verdict.threshold)
    if verdict.quality is not None:
        probe = Probe(module, spec, manifest.prior, rows, crops)
        confirmed = confirm(probe.everything(), verdict.quality, verdict.threshold)
        confirmed |= under_shifts(probe, verdict.quality, verdict.threshold)
        measured |= {f"{split}_{how}": found for how, found in confirmed.items()}
    complete = manifest.model_copy(
        update={
            "metrics": manifest.metrics | measured,
            "subgroups": subgroups(
                split, with_prior(answer(rows).probabilities, manifest.prior, BALANCED), rows
            ),
            "verdict": verdict.model_copy(update=verdict_figures(split, measured[f"{split}_{BALANCED}"])),
        }
    )
    beside = manifest_path(repository, name, manifest.version)
    write_manifest(beside if beside.exists() else manifest_path(repository, name), complete)
    if plot is not None and verdict.quality is not None:
        draw_quality(verdict.quality, plot)
    return table(
        ("rows", "figure", "value"),
        [(part, figure, shown(found)) for part, all_ in measured.items() for figure, found in all_.items()],
    )
