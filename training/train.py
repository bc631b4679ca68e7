"""The training loop: one page, read top to bottom."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor

from training.batches import Batches
from training.checkpoint import describe, save_atomically
from training.config import RunConfig
from training.datasets import summary
from training.datasets.faces import Dataset
from training.device import DeviceName, choose_device, choose_precision, compile_parts
from training.images import Images
from training.initialise import initialise
from training.lineage import (
    Start,
    record_versions,
    refuse_changes,
    refuse_what_learned_validation,
    versions,
    write_data_card,
)
from training.losses import Objective
from training.models import build
from training.optimise import (
    average_statistics,
    learning_rate,
    make_optimiser,
    sam_perturbation,
    update_average,
)
from training.progress import Progress
from training.rows import Targets, seed_of, training_rows, widened
from training.settings import dumped
from training.teachers import follow
from training.validation import Validation, count_stale_epochs, score

RECALIBRATION = 512  # training images for `Network.recalibrate_batch_norm`


def train(
    config: RunConfig,
    dataset: Dataset,
    run: Path,
    *,
    start: Start | None = None,
    resume: bool = False,
    device: DeviceName = "auto",
    devices: int = 1,
    threads: int | None = None,
    compiled: bool = False,
    minutes: float | None = None,
) -> None:
    """Train, and write into `run` after every epoch. Checkpoints are written atomically.

    `best.ckpt` has the averaged weights of the epoch with the highest validation accuracy, averaged over the
    heads. Validation rows come from the training split; test splits choose nothing. `last.ckpt` has
    the state for `resume`: a resumed run ends with the same weights as an uninterrupted run. Other files are
    `config.yaml`, `data.json`, `versions.json`, `metrics.jsonl`, `curves.png` and TensorBoard's.

    devices: number of CPU processes or GPUs; `torchrun` sets its own number. They share the `config.batch`
    images of a step. compiled: translate the network by `torch.compile`, which takes minutes. minutes: the
    last epoch ends then, complete or not, and is validated; a cosine schedule gets to 0 by then.
    Raises `ValueError` for data or checkpoints that do not fit and for a resumed run with another
    configuration, `FloatingPointError` for a loss that is not finite.
    """
    begun = time.monotonic()
    start = start or Start()
    resume = resume and (run / "last.ckpt").is_file()
    if resume:
        refuse_changes(run, config, start)
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device, tf32=True)
    precision = choose_precision(config.precision, chosen)
    # Each process measures batch-norm statistics on its own images, and `average_statistics` joins them.
    strategy = DDPStrategy(broadcast_buffers=False) if devices > 1 else "auto"
    fabric = Fabric(accelerator=chosen.type, devices=devices, strategy=strategy, precision=precision)
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    rows, held_out = training_rows(dataset, config)
    steps = len(rows) // config.batch
    if config.batch < fabric.world_size or not steps:
        raise ValueError(
            f"{len(rows)} training rows do not fill one batch of {config.batch} "
            f"on {fabric.world_size} devices"
        )
    if config.emotions is not None:
        dataset = widened(dataset, config.emotions)
    network = build(
        config.network, emotions=len(dataset.emotions), label_emotions=len(dataset.label_emotions)
    )
    if start.teachers and start.answers:
        raise ValueError("a run follows teachers or a file of their answers, not both")
    if bool(start.teachers or start.answers) != (config.loss.distillation > 0):
        raise ValueError("a teacher and loss.distillation above 0 need each other")
    refuse_what_learned_validation(start, config)
    teachers = follow(start, config, dataset, rows, network, fabric)
    progress = Progress(run, enabled=fabric.is_global_zero)
    progress.say(summary(dataset))
    images = Images(rows.pictures, network, fabric.device, keep=True)
    if start.weights is not None:
        progress.say(str(initialise(network, start.weights, start.weights_kind)))
        _, some = next(images.steps([torch.arange(min(len(rows), RECALIBRATION))]))
        network.recalibrate_batch_norm(some.cpu())

    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval().requires_grad_(False).to(fabric.device)
    if compiled:
        compile_parts(network)
    model, optimiser = fabric.setup(network, make_optimiser(network, config.optimiser))
    targets = Targets.of(rows, dataset)
    objective = Objective(config.loss, targets.drawn()).to(fabric.device)
    validation = Validation(held_out, dataset, network, objective, fabric.device)
    tests = {
        name: Validation(each, dataset, network, objective, fabric.device)
        for name, each in (dataset.tests.items() if config.measure_tests else ())
    }
    batches = Batches(
        images,
        targets,
        config,
        process=fabric.global_rank,
        processes=fabric.world_size,
        portable=start.answers is not None,
    )
    state: dict[str, Any] = {
        "model": model,
        "average": average,
        "optimiser": optimiser,
        "epoch": 0,
        "best": -1.0,  # so that the first epoch is saved at any accuracy
        "watched": -np.inf,
        "stale": 0,
    }
    if resume:
        fabric.load(run / "last.ckpt", state)

    def spent() -> float:
        """Share of `minutes`. One process tells the time to all, because every step needs all of them."""
        return 0.0 if minutes is None else fabric.broadcast((time.monotonic() - begun) / (60 * minutes))

    if fabric.is_global_zero:
        if not resume:
            progress.delete_record()
            (run / "versions.json").unlink(missing_ok=True)
        record_versions(
            run / "versions.json",
            {"from_epoch": state["epoch"] + 1, "precision": precision, **versions(start)},
        )
        (run / "config.yaml").write_text(dumped(config))
        write_data_card(run, dataset, rows, held_out)

    for epoch in range(state["epoch"], config.epochs):
        if config.early_stopping is not None and state["stale"] >= config.early_stopping.patience:
            progress.say(f"stopped: {state['stale']} epochs without an improvement")
            break
        started, total = time.monotonic(), torch.zeros((), device=fabric.device)
        # One seed per epoch and process, so that a resumed run equals an uninterrupted run.
        torch.manual_seed(seed_of(config.seed, epoch, fabric.global_rank))
        model.train()
        drawn = progress.track(batches.of(epoch), steps, f"epoch {epoch + 1}/{config.epochs}")
        for step, batch in enumerate(drawn):
            answered = None if teachers is None else teachers(batch)
            goal = batch.main, batch.label, answered
            share = spent()
            rate = learning_rate(epoch + step / steps, config, share)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = objective(model(batch.images), *goal)
            optimiser.zero_grad()
            fabric.backward(loss)
            if config.optimiser.sam_radius:
                with sam_perturbation(network, config.optimiser.sam_radius):
                    optimiser.zero_grad()
                    fabric.backward(objective(model(batch.images), *goal))
            fabric.clip_gradients(
                model, optimiser, max_norm=config.optimiser.clip_norm, error_if_nonfinite=False
            )
            optimiser.step()
            update_average(average, network, epoch * steps + step, config.optimiser.ema_decay)
            total += loss.detach()
            if share >= 1:
                break

        reduced = fabric.all_reduce(total, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        mean_loss = reduced.item() / (step + 1)
        if not np.isfinite(mean_loss):
            raise FloatingPointError(
                f"the loss of epoch {epoch + 1} is {mean_loss}; start a new run with a lower "
                "optimiser.learning_rate"
            )
        average_statistics(fabric, network, average)
        # One process decides for all, because saving needs all of them.
        figures = fabric.broadcast(validation.figures(average) if fabric.is_global_zero else {})
        state["epoch"] = epoch + 1
        if config.early_stopping is not None:
            count_stale_epochs(state, figures, config.early_stopping)
        if score(figures) > state["best"]:
            state["best"] = score(figures)
            described = describe(config, dataset.emotions, dataset.label_emotions, epoch + 1)
            save_atomically(fabric, run / "best.ckpt", {"average": average, **described})
        save_atomically(fabric, run / "last.ckpt", state)
        for name, validation_of in tests.items():
            measured = validation_of.figures(average) if fabric.is_global_zero else {}
            figures |= {key.replace("validation", name): value for key, value in measured.items()}
        progress.record(
            epoch + 1,
            {"loss": mean_loss, **figures, "learning_rate": rate, "seconds": time.monotonic() - started},
        )
        if share >= 1:
            progress.say(f"stopped: {minutes:g} minutes are over")
            break
