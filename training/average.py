"""The mean of the weights of several networks, which costs no more time than one (Wortsman et al., 2022)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from training.augment import Augmentation
from training.checkpoint import Trained, load_trained, save_trained
from training.datasets.faces import Dataset
from training.device import DeviceName, choose_device
from training.evaluation.predict import predict
from training.images import Images
from training.lineage import Start, content_sha256, record_versions, versions
from training.rows import training_rows

STATISTICS = 8192  # augmented training images for the batch-norm statistics of the mean
BATCH = 128


def average(runs: Sequence[Path], dataset: Dataset, out: Path, *, device: DeviceName = "auto") -> None:
    """Write the mean of checkpoints as `best.ckpt`, and `average.json` with the validation accuracy of all.

    The networks should come from the same initial weights: the mean of others answers by chance. Batch-norm
    statistics are measured again, on augmented training images. The configuration is that of the first run.
    Raises `ValueError` for networks, emotions or validation rows that differ.
    """
    from training.evaluation.metrics import accuracy  # here, because a pack does without scikit-learn

    members = [load_trained(run) for run in runs]
    first = members[0]
    for run, member in zip(runs, members, strict=True):
        if _fixed(member) != _fixed(first):
            raise ValueError(f"{run} has another network, other emotions or validation rows than {runs[0]}")
    chosen, (rows, held_out) = choose_device(device), training_rows(dataset, first.config)
    mean = load_trained(runs[0])
    mean.network.load_state_dict(_mean([member.network.state_dict() for member in members]))
    network = mean.network.to(chosen)
    torch.manual_seed(first.config.seed)
    order = torch.randperm(len(rows))[:STATISTICS]
    # Batches of nearly equal size, because all count alike.
    steps = order.tensor_split(max(1, len(order) // BATCH))
    augmentation = Augmentation(first.config.augment).to(chosen)
    images = Images(rows.pictures, network, chosen)
    update_bn((augmentation(some) for _, some in images.steps(steps)), network)
    network.eval()
    scored = {
        name: accuracy(predict(each.network.to(chosen), held_out).probabilities, held_out.majority)
        for name, each in {"mean": mean, **dict(zip(map(str, runs), members, strict=True))}.items()
    }
    for name, metric in scored.items():
        print(f"validation accuracy of {name}: {metric.value:.3f}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "average.json").write_text(
        json.dumps({name: metric.model_dump() for name, metric in scored.items()}, indent=1)
    )
    (out / "versions.json").unlink(missing_ok=True)
    record_versions(
        out / "versions.json",
        {"averaged_sha256": [content_sha256(run) for run in runs], **versions(Start())},
    )
    save_trained(replace(mean, network=network.cpu()), out / "best.ckpt")


def _fixed(trained: Trained) -> tuple[object, ...]:
    config = trained.config
    rows = (config.dataset, config.validation_share, config.fold)
    return (config.network, trained.emotions, trained.label_emotions, *rows)


def _mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Counters, which are no floating-point numbers, are those of the first state."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
