"""Domain adaptation: fits a trained network to the pictures of another place.

First, batch-norm statistics are measured again on unlabelled pictures (AdaBN, Li et al., 2017). Then the
network is fine-tuned on a few labelled pictures. Each step is measured on rows that neither step has seen.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from service.core.manifest import Metric
from training.checkpoint import Trained, checkpoint_file, load_trained, save_trained
from training.config import RunConfig
from training.datasets import load
from training.datasets.faces import Dataset, Pictures
from training.datasets.folders import load_pictures
from training.datasets.splits import split_validation
from training.evaluation.metrics import accuracy, calibration_error, mean_class_accuracy
from training.evaluation.predict import predict
from training.lineage import Start, record_versions, versions
from training.models import Network
from training.train import train

TEST_SHARE = 0.2
BATCH = 64


@dataclass(frozen=True)
class FineTuning:
    """Gentle by default: a tenth of the usual rate, and few epochs."""

    epochs: int = 10
    learning_rate: float = 0.005


def adapt(
    source: Path,
    out: Path,
    *,
    unlabelled: Path | None = None,
    labelled: Path | None = None,
    tuning: FineTuning = FineTuning(),
) -> dict[str, dict[str, Metric]]:
    """Write an adapted `best.ckpt` into `out`, and return the figures of each stage on unseen labelled rows.

    source: a checkpoint or a run's folder. unlabelled: a folder of face pictures, at any depth. labelled: a
    folder of pictures per emotion. Figures are measured on its `test` folder, or else on a fifth that is held
    out. Without labelled pictures, nothing is measured and the result is empty. Writes `adaptation.json` and
    `adaptation.md`. Raises `ValueError` when neither folder is given or a folder has no usable picture.
    """
    if unlabelled is None and labelled is None:
        raise ValueError(
            "adapt needs a folder of unlabelled pictures, a folder of labelled pictures, or both"
        )
    trained = load_trained(source)
    dataset = None if labelled is None else with_test(load("folder", labelled), trained.config.seed)
    out.mkdir(parents=True, exist_ok=True)
    stages = {"before": trained}
    if unlabelled is not None:
        pictures = load_pictures(unlabelled)
        network = renormalised(copy.deepcopy(trained.network), pictures)
        stages["batch norm"] = trained = replace(trained, network=network)
        save_trained(trained, out / "best.ckpt")
        record_versions(
            out / "versions.json",
            {"from_epoch": trained.epoch, **versions(Start(weights=checkpoint_file(source)))},
        )
    if dataset is not None:
        stages["fine-tuned"] = fine_tuned(trained, dataset, out, tuning)
    figures = {} if dataset is None else {name: measured(stage, dataset) for name, stage in stages.items()}
    _write(out, figures)
    return figures


def renormalised(network: Network, pictures: Pictures) -> Network:
    """Replace batch-norm statistics by those of `pictures`, and return the same network."""
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    order = np.random.default_rng(0).permutation(len(pictures))
    # Batches of nearly equal size, because a small last batch would have the same weight as a full batch.
    with torch.no_grad():
        for rows in np.array_split(order, max(1, len(order) // BATCH)):
            images = torch.from_numpy(pictures.read(rows, size=network.size, channels=network.channels))
            network(images.float() / 255)
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def fine_tuned(trained: Trained, dataset: Dataset, out: Path, tuning: FineTuning) -> Trained:
    """A short run from the trained weights, with the same heads."""
    start = out / "start.ckpt"
    save_trained(trained, start)
    changes = {
        "dataset": "folder",
        "emotions": len(trained.served),
        "epochs": tuning.epochs,
        "batch": min(trained.config.batch, max(2, len(dataset.training) // 4)),
        "optimiser": {
            **trained.config.optimiser.model_dump(),
            "learning_rate": tuning.learning_rate,
            "warmup_epochs": 0.0,
        },
        # There is no teacher here.
        "loss": {**trained.config.loss.model_dump(), "distillation": 0.0},
    }
    config = RunConfig.model_validate({**trained.config.model_dump(), **changes})
    train(config, dataset, out, start=Start(weights=start))
    start.unlink()
    return load_trained(out)


def with_test(dataset: Dataset, seed: int) -> Dataset:
    """The data set with a test split, held out of the training rows if missing."""
    if dataset.tests:
        return dataset
    training, test = split_validation(dataset.training, TEST_SHARE, seed + 1)
    return replace(dataset, training=training, tests={"held out": test})


def measured(trained: Trained, dataset: Dataset) -> dict[str, Metric]:
    """The uncalibrated figures of one stage on the first test split."""
    rows = next(iter(dataset.tests.values()))
    predicted = predict(trained.network, rows)
    return {
        "accuracy": accuracy(predicted.probabilities, rows.majority),
        "mean_class_accuracy": mean_class_accuracy(predicted.probabilities, rows.majority),
        "ece": calibration_error(predicted.probabilities, rows.majority),
    }


def _write(out: Path, figures: dict[str, dict[str, Metric]]) -> None:
    plain = {stage: {name: m.model_dump() for name, m in row.items()} for stage, row in figures.items()}
    (out / "adaptation.json").write_text(json.dumps(plain, indent=1))
    lines = ["# Adaptation", ""]
    if not figures:
        lines.append("No labelled pictures were given, so nothing was measured.")
    else:
        names = list(next(iter(figures.values())))
        lines += [f"| stage | {' | '.join(names)} | n |", "|---" * (len(names) + 2) + "|"]
        for stage, row in figures.items():
            cells = [
                f"{m.value:.3f}" + (f" [{m.interval[0]:.3f}, {m.interval[1]:.3f}]" if m.interval else "")
                for m in row.values()
            ]
            lines.append(f"| {stage} | {' | '.join(cells)} | {next(iter(row.values())).samples} |")
    (out / "adaptation.md").write_text("\n".join(lines) + "\n")
