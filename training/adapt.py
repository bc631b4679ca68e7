"""Domain adaptation: fits a trained network to the pictures of another place.

First, batch-norm statistics are mixed with those of unlabelled pictures (AdaBN, Li et al., 2017). Then the
network is fine-tuned on a few labelled pictures. The stage with the best validation accuracy is kept, and
each stage is measured on rows that no stage has seen.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel
from torch.optim.swa_utils import update_bn

from service.core.manifest import Metric
from training.checkpoint import Trained, checkpoint_file, load_trained, save_trained
from training.config import RunConfig
from training.datasets import load
from training.datasets.faces import Dataset, LabelledFaces, Pictures
from training.datasets.folders import load_pictures
from training.datasets.splits import split_validation
from training.device import DeviceName, choose_device
from training.evaluation.metrics import accuracy, calibration_error, mean_class_accuracy
from training.evaluation.predict import device_of, predict
from training.evaluation.tables import shown, table
from training.images import Images
from training.lineage import Start, record_versions, versions
from training.models import Network
from training.rows import refuse_other_emotions, validation_rows
from training.train import train

TEST_SHARE = 0.2
BATCH = 64
SOURCE_IMAGES = 1024
"""N: how many new pictures count as much as the statistics of the training data."""

Figures = dict[str, Metric]


class Adaptation(BaseModel):
    """What was done. kept: the stage in `best.ckpt`. pictures: how many were unlabelled, share: their weight.

    stages: figures of each stage on unseen labelled rows, and `validation_accuracy` on those that chose.
    """

    kept: str
    pictures: int = 0
    share: float = 0.0
    stages: dict[str, Figures] = {}


def adapt(
    source: Path,
    out: Path,
    *,
    unlabelled: Path | None = None,
    labelled: Path | None = None,
    epochs: int = 10,
    learning_rate: float = 0.005,
    device: DeviceName = "auto",
) -> Adaptation:
    """Write an adapted `best.ckpt` into `out`.

    source: a checkpoint or a run's folder. unlabelled: a folder of face pictures, at any depth. labelled: a
    folder of pictures per emotion. Of these, the source's `validation_share` chooses the stage that is kept,
    which may be the source itself. Figures are measured on the `test` folder, or else on a fifth that is held
    out. Without labelled pictures, nothing is chosen or measured. epochs, learning_rate: of the fine-tuning.
    Writes `adaptation.json` and `adaptation.md`.
    Raises `ValueError` when neither folder is given, a folder has no usable picture, or the labels have an
    emotion that the network does not answer.
    """
    if unlabelled is None and labelled is None:
        raise ValueError(
            "adapt needs a folder of unlabelled pictures, a folder of labelled pictures, or both"
        )
    trained, chosen = load_trained(source), choose_device(device)
    trained.network.to(chosen)
    dataset = None if labelled is None else with_test(load("folder", labelled), trained.config.seed)
    if dataset is not None:
        refuse_other_emotions(trained.emotions, dataset)
    out.mkdir(parents=True, exist_ok=True)
    (out / "versions.json").unlink(missing_ok=True)
    stages, done = {"before": trained}, Adaptation(kept="batch norm")
    if unlabelled is not None:
        pictures = load_pictures(unlabelled)
        done.pictures, done.share = len(pictures), share_of(len(pictures))
        network = renormalised(copy.deepcopy(trained.network), pictures)
        stages["batch norm"] = replace(trained, network=network)
    if dataset is not None:
        config = tuned(trained, dataset, epochs, learning_rate)
        rows = validation_rows(dataset, config), next(iter(dataset.tests.values()))
        done.stages = {name: measured(stage.network, *rows) for name, stage in stages.items()}
        stages["fine-tuned"] = fine_tuned(stages[_best(done.stages)], dataset, config, out, device)
        done.stages["fine-tuned"] = measured(stages["fine-tuned"].network.to(chosen), *rows)
        done.kept = _best(done.stages)
    save_trained(replace(stages[done.kept], network=stages[done.kept].network.cpu()), out / "best.ckpt")
    record_versions(
        out / "versions.json",
        {"from_epoch": trained.epoch, **versions(Start(weights=checkpoint_file(source)))},
    )
    (out / "adaptation.json").write_text(done.model_dump_json(indent=1))
    (out / "adaptation.md").write_text(markdown(done))
    return done


def share_of(pictures: int) -> float:
    """The weight of the pictures' statistics: n / (n + N), as Schneider et al. (2020)."""
    return pictures / (pictures + SOURCE_IMAGES)


def renormalised(network: Network, pictures: Pictures) -> Network:
    """Mix batch-norm statistics with those of `pictures`, and return the same network in eval mode."""
    before = copy.deepcopy(network.state_dict())
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(pictures)))
    # Batches of nearly equal size, because a small last batch would have the same weight as a full batch.
    batches = order.tensor_split(max(1, len(order) // BATCH))
    update_bn((images for _, images in Images(pictures, network, device_of(network)).steps(batches)), network)
    share = share_of(len(pictures))
    mixed = {
        name: torch.lerp(before[name], value, share)
        for name, value in network.state_dict().items()
        if name.endswith(("running_mean", "running_var"))
    }
    network.load_state_dict(before | mixed)
    return network.eval()


def tuned(trained: Trained, dataset: Dataset, epochs: int, learning_rate: float) -> RunConfig:
    """The configuration of a short run with the network's heads and the source's settings."""
    changes = {
        "dataset": "folder",
        "emotions": len(trained.emotions),
        "epochs": epochs,
        "batch": min(trained.config.batch, max(2, len(dataset.training) // 4)),
        "precision": "auto",
        "optimiser": {
            **trained.config.optimiser.model_dump(),
            "learning_rate": learning_rate,
            "warmup_epochs": 0.0,
        },
        # There is no teacher here.
        "loss": {**trained.config.loss.model_dump(), "distillation": 0.0},
    }
    return RunConfig.model_validate({**trained.config.model_dump(), **changes})


def fine_tuned(
    trained: Trained, dataset: Dataset, config: RunConfig, out: Path, device: DeviceName
) -> Trained:
    """A short run from the trained weights."""
    start = out / "start.ckpt"
    save_trained(trained, start)
    train(config, dataset, out, start=Start(weights=start), device=device)
    start.unlink()
    return load_trained(out)


def with_test(dataset: Dataset, seed: int) -> Dataset:
    """The data set with a test split, held out of the training rows if missing."""
    if dataset.tests:
        return dataset
    training, test = split_validation(dataset.training, TEST_SHARE, seed + 1)
    return replace(dataset, training=training, tests={"held out": test})


def measured(network: Network, held_out: LabelledFaces, unseen: LabelledFaces) -> Figures:
    """The uncalibrated figures of a network on validation rows and on unseen rows."""
    chosen, answers = (predict(network, rows).probabilities for rows in (held_out, unseen))
    return {
        "validation_accuracy": accuracy(chosen, held_out.majority),
        "accuracy": accuracy(answers, unseen.majority),
        "mean_class_accuracy": mean_class_accuracy(answers, unseen.majority),
        "ece": calibration_error(answers, unseen.distributions[:, : answers.shape[1]]),
    }


def _best(stages: dict[str, Figures]) -> str:
    """The stage with the highest validation accuracy, the earliest of equal ones."""
    return max(stages, key=lambda name: stages[name]["validation_accuracy"].value)


def markdown(done: Adaptation) -> str:
    """The report."""
    lines = ["# Adaptation", ""]
    if done.pictures:
        lines += [
            f"The batch-norm statistics were mixed with those of {done.pictures} unlabelled pictures, "
            f"which count {done.share:.0%}.",
            "",
        ]
    if not done.stages:
        return "\n".join([*lines, "No labelled pictures were given, so nothing was measured.", ""])
    names = [name.replace("_", " ") for name in done.stages["before"]]
    lines += table(
        ["stage", *names], [[stage, *map(shown, row.values())] for stage, row in done.stages.items()]
    )
    kept = "The network stays as it was" if done.kept == "before" else f"`best.ckpt` is the stage {done.kept}"
    return "\n".join([*lines, f"{kept}, which has the best validation accuracy.", ""])
