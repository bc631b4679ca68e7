"""The training loop: one page, read top to bottom."""

from __future__ import annotations

import copy
import json
import platform
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor

from service.core.manifest import EMOTIONS, digest
from training.augment import Augmentation, Mixing
from training.checkpoint import checkpoint_file, config_of, describe, save_atomically
from training.config import RunConfig
from training.datasets import summary
from training.datasets.faces import Dataset, LabelledFaces, one_hot
from training.datasets.splits import drop_near_duplicates, split_training
from training.evaluation.metrics import accuracy
from training.evaluation.predict import predict
from training.initialise import initialise
from training.losses import Batch, Objective, Taught
from training.models import Network, build
from training.optimise import at_sharpest, learning_rate, make_optimiser, update_average
from training.progress import Progress
from training.teachers import Teachers

SETTLED = 512  # training images for `Network.settle`


@dataclass(frozen=True)
class Start:
    """Optional files that a run starts from.

    weights: a state dict or checkpoint that initialises the network. teachers: checkpoints to distil from.
    """

    weights: Path | None = None
    teachers: tuple[Path, ...] = ()


def train(
    config: RunConfig,
    dataset: Dataset,
    run: Path,
    *,
    start: Start = Start(),
    resume: bool = False,
    threads: int | None = None,
    devices: int = 1,
) -> None:
    """Train, and write into `run` after every epoch. Checkpoints are written atomically.

    `best.ckpt` has the averaged weights of the epoch with the highest validation accuracy, averaged over the
    heads. Validation rows are carved out of the training split; test splits are not used. `last.ckpt` has the
    state for `resume`: a resumed run ends with the same weights as an uninterrupted run. Other files are
    `config.yaml`, `versions.json`, `metrics.jsonl`, `curves.png` and TensorBoard's.

    devices: number of CPU processes or GPUs; `torchrun` sets its own number. They share the `config.batch`
    images of a step.
    Raises `ValueError` for data or checkpoints that do not fit, `FloatingPointError` for a loss that is not
    finite.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    fabric = Fabric(
        accelerator="auto",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision=config.precision,
    )
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    rows, held_out = training_rows(dataset, config)
    share = config.batch // fabric.world_size
    steps = len(rows) // config.batch
    if not share or not steps:
        raise ValueError(
            f"{len(rows)} training rows do not fill one batch of {config.batch} "
            f"on {fabric.world_size} devices"
        )
    if config.emotions is not None:
        dataset = widened(dataset, config.emotions)
    network = build(config.network, served=len(dataset.served), auxiliary=len(dataset.auxiliary))
    if bool(start.teachers) != (config.loss.distillation > 0):
        raise ValueError("a teacher and loss.distillation above 0 need each other")
    refuse_what_learned_validation(start, config)
    teachers = Teachers.load(start.teachers, network, dataset) if start.teachers else None
    targets = Targets.of(rows, dataset)
    objective = Objective(config.loss, targets.drawn())
    progress = Progress(run, enabled=fabric.is_global_zero)
    progress.say(summary(dataset))
    if start.weights is not None:
        progress.say(str(initialise(network, start.weights)))
        some = rows.pictures.read(
            np.arange(min(len(rows), SETTLED)), size=network.size, channels=network.channels
        )
        network.settle(torch.from_numpy(some).float() / 255)

    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval().requires_grad_(False).to(fabric.device)
    model, optimiser = fabric.setup(network, make_optimiser(network, config.optimiser))
    objective, augmentation = objective.to(fabric.device), Augmentation(config.augment).to(fabric.device)
    mixing = Mixing(config.augment)
    taught: Taught | None = None
    if teachers is not None:
        teachers = teachers.to(fabric.device)
        if config.loss.distillation_views == "whole":
            taught = teachers.teach_once(rows, fabric.device)
    state: dict[str, Any] = {
        "model": model,
        "average": average,
        "optimiser": optimiser,
        "epoch": 0,
        "best": -1.0,  # so that the first epoch is saved at any accuracy
    }
    if resume and (run / "last.ckpt").is_file():
        fabric.load(run / "last.ckpt", state)
    elif fabric.is_global_zero:
        progress.forget()
        (run / "versions.json").unlink(missing_ok=True)
    if fabric.is_global_zero:
        record_versions(run / "versions.json", {"from_epoch": state["epoch"] + 1, **versions(start)})
        (run / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))

    for epoch in range(state["epoch"], config.epochs):
        started, total = time.monotonic(), torch.zeros((), device=fabric.device)
        # One seed per epoch and process, so that a resumed run equals an uninterrupted run.
        order = epoch_order(targets.emotion, config, epoch, targets.weights)
        torch.manual_seed(1000 * (config.seed + epoch + 1) + fabric.global_rank)
        model.train()
        mine = order[: steps * config.batch].reshape(steps, fabric.world_size, share)[:, fabric.global_rank]
        read = progress.track(read_ahead(rows, mine, network), steps, f"epoch {epoch + 1}/{config.epochs}")
        for step, (chosen, pixels) in enumerate(read):
            images = augmentation(pixels.to(fabric.device, non_blocking=True).float() / 255)
            parts = (targets.served[chosen], targets.auxiliary[chosen])
            batch = Batch(*mixing(images, *(part.to(fabric.device) for part in parts)))
            if taught is not None:
                batch = replace(
                    batch, taught=Taught(*(logits[chosen].to(fabric.device) for logits in taught))
                )
            elif teachers is not None:
                batch = replace(batch, taught=teachers.teach(batch.images))
            rate = learning_rate(epoch + step / steps, config)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = objective(model(batch.images), batch)
            optimiser.zero_grad()
            fabric.backward(loss)
            if config.optimiser.sam_radius:
                with at_sharpest(network, config.optimiser.sam_radius):
                    optimiser.zero_grad()
                    fabric.backward(objective(model(batch.images), batch))
            fabric.clip_gradients(
                model, optimiser, max_norm=config.optimiser.clip_norm, error_if_nonfinite=False
            )
            optimiser.step()
            update_average(average, network, epoch * steps + step, config.optimiser.ema_decay)
            total += loss.detach()

        reduced = fabric.all_reduce(total, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        mean_loss = reduced.item() / steps
        if not np.isfinite(mean_loss):
            raise FloatingPointError(
                f"the loss of epoch {epoch + 1} is {mean_loss}; resume from the epoch before with a lower "
                "optimiser.learning_rate"
            )
        predicted = predict(average, held_out, device=fabric.device)
        figures = {"validation": accuracy(predicted.probabilities, held_out.majority).value}
        if dataset.auxiliary:
            figures["validation_auxiliary"] = accuracy(predicted.auxiliary, held_out.labels).value
        state["epoch"] = epoch + 1
        if (score := sum(figures.values()) / len(figures)) > state["best"]:
            state["best"] = score
            described = describe(config, dataset.served, dataset.auxiliary, epoch + 1)
            save_atomically(fabric, run / "best.ckpt", {"average": average, **described})
        save_atomically(fabric, run / "last.ckpt", state)
        progress.record(
            epoch + 1,
            {"loss": mean_loss, **figures, "learning_rate": rate, "seconds": time.monotonic() - started},
        )


@dataclass(frozen=True)
class Targets:
    """Targets of each head for every training row: served float [N,C], auxiliary float [N,A].

    emotion: int64 [N], the most likely served emotion, -1 without a target. weights: float [N], how often a
    row is drawn relative to others, None if all are drawn alike.
    """

    served: Tensor
    auxiliary: Tensor
    emotion: Tensor
    weights: Tensor | None = None

    @classmethod
    def of(cls, rows: LabelledFaces, dataset: Dataset) -> Targets:
        served = torch.from_numpy(rows.distributions[:, : len(dataset.served)])
        auxiliary = torch.from_numpy(one_hot(rows.labels, len(dataset.auxiliary)))
        emotion = torch.where(served.sum(dim=1) > 0, served.argmax(dim=1), -1)
        return cls(
            served, auxiliary, emotion, None if rows.weights is None else torch.from_numpy(rows.weights)
        )

    def drawn(self) -> Tensor:
        """[C], how often each served emotion is drawn."""
        return self.served.sum(dim=0) if self.weights is None else self.weights @ self.served


def training_rows(dataset: Dataset, config: RunConfig) -> tuple[LabelledFaces, LabelledFaces]:
    """(training, validation) rows of the training split, without copies of test rows or of each other."""
    rows, held_out = split_training(dataset, config.validation_share, config.fold)
    return drop_near_duplicates(rows, held_out), held_out


def validation_rows(dataset: Dataset, config: RunConfig) -> LabelledFaces:
    """The validation rows of `training_rows`, in half of the time."""
    return split_training(dataset, config.validation_share, config.fold)[1]


def refuse_what_learned_validation(start: Start, config: RunConfig) -> None:
    """Raises `ValueError` for a checkpoint of one of the data sets that held out other rows."""
    for file in (*start.teachers, *([] if start.weights is None else [start.weights])):
        other = config_of(file)
        if (
            other is not None
            and other.dataset_names & config.dataset_names
            and (other.validation_share < config.validation_share or other.fold != config.fold)
        ):
            raise ValueError(
                f"{file} was trained on rows that validate this run: its validation_share "
                f"was {other.validation_share:g}, this run's is {config.validation_share:g}; "
                f"its fold was {other.fold}, this run's is {config.fold}"
            )


def widened(dataset: Dataset, emotions: int) -> Dataset:
    """The same rows for a served head with `emotions` outputs, of which some may have no rows.

    Raises `ValueError` when the rows have more emotions than the head.
    """
    if emotions < len(dataset.served):
        raise ValueError(f"{dataset.name} holds {len(dataset.served)} emotions, the network {emotions}")
    return replace(dataset, served=EMOTIONS[:emotions])


def epoch_order(emotion: Tensor, config: RunConfig, epoch: int, weights: Tensor | None = None) -> Tensor:
    """The rows of one epoch, the same in every process: a permutation or a draw with replacement."""
    generator = torch.Generator().manual_seed(config.seed + epoch + 1)
    if not config.balanced_sampling and weights is None:
        return torch.randperm(len(emotion), generator=generator)
    # Rows without an emotion count as one more emotion.
    kind = torch.where(emotion < 0, len(EMOTIONS), emotion)
    chance = torch.bincount(kind)[kind].double() ** -config.balanced_sampling
    if weights is not None:
        chance *= weights
    return torch.multinomial(chance, len(emotion), replacement=True, generator=generator)


def read_ahead(rows: LabelledFaces, order: Tensor, network: Network) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, their images uint8) of each step in `order` [steps, n]. The next step is read in parallel."""

    def read(chosen: Tensor) -> tuple[Tensor, Tensor]:
        images = rows.pictures.read(chosen.numpy(), size=network.size, channels=network.channels)
        return chosen, torch.from_numpy(images)

    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        following = reader.submit(read, order[0])
        for chosen in order[1:]:
            ready, following = following.result(), reader.submit(read, chosen)
            yield ready
        yield following.result()


def record_versions(path: Path, entry: dict[str, Any]) -> None:
    """Append one entry per start of the run, because another version of the code may resume it."""
    entries = json.loads(path.read_text()) if path.is_file() else []
    path.write_text(json.dumps([*entries, entry], indent=1))


def versions(start: Start) -> dict[str, str | list[str] | None]:
    """The commit (None outside of a checkout), versions of packages, and digests of the starting files."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": head.stdout.strip() or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kornia": version("kornia"),
        "weights_sha256": None if start.weights is None else digest(start.weights),
        "teachers_sha256": [digest(checkpoint_file(teacher)) for teacher in start.teachers],
    }
