"""The training loop: one page, read top to bottom."""

from __future__ import annotations

import copy
import json
import math
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from training.augment import augment
from training.config import LossConfig, OptimiserConfig, RunConfig
from training.datasets.fer2013 import FaceImages, carve_validation, load_fer2013, without_copies_of
from training.evaluate import accuracy, predict
from training.models import build
from training.models.compact import Outputs
from training.models.mixture import load_balancing_loss


@dataclass(frozen=True)
class Batch:
    """On the device: images float [N,1,48,48] in [0, 1], labels int64 [N], distributions float32 [N,8]."""

    images: Tensor
    labels: Tensor
    distributions: Tensor


def train(
    config: RunConfig, data: Path, run: Path, *, resume: bool = False, threads: int | None = None
) -> None:
    """Train, writing `config.yaml`, `versions.json`, `metrics.jsonl`, `last.ckpt` and `best.ckpt` into `run`.

    `best.ckpt` holds the averaged weights of the epoch with the highest accuracy on FER+ majority labels of
    the validation rows, which are carved out of the Training split. PublicTest is not touched.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.seed_everything(config.seed, verbose=False)
    rows, held_out = training_rows(load_fer2013(data), config)
    network = build(config.network)
    if fabric.device.type == "cpu":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval().requires_grad_(False).to(fabric.device)
    optimiser = make_optimiser(network, config.optimiser)
    model, optimiser = fabric.setup(network, optimiser)
    state: dict[str, Any] = {
        "model": model,
        "average": average,
        "optimiser": optimiser,
        "epoch": 0,
        "best": -1.0,  # the first epoch is the best so far even if it gets nothing right
    }
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump(config.model_dump()))
    if resume and (run / "last.ckpt").is_file():
        fabric.load(run / "last.ckpt", state)
    else:
        (run / "metrics.jsonl").unlink(missing_ok=True)
        (run / "versions.json").write_text(json.dumps(versions()))

    images = torch.from_numpy(rows.images).to(fabric.device)
    labels = torch.from_numpy(rows.labels).to(fabric.device)
    distributions = torch.from_numpy(rows.distributions).to(fabric.device)
    steps = len(rows) // config.batch
    if not steps:
        raise ValueError(f"{len(rows)} training rows do not fill one batch of {config.batch}")
    for epoch in range(state["epoch"], config.epochs):
        started, total_loss = time.monotonic(), 0.0
        # A seed for each epoch, dropout's global generator included: resumed runs end as uninterrupted ones.
        torch.manual_seed(config.seed + epoch + 1)
        generator = torch.Generator(fabric.device).manual_seed(config.seed + epoch + 1)
        model.train()
        order = torch.randperm(len(rows), generator=generator, device=fabric.device)
        for step in range(steps):
            chosen = order[step * config.batch : (step + 1) * config.batch]
            pixels = images[chosen].unsqueeze(1).float() / 255
            batch = Batch(augment(pixels, generator), labels[chosen], distributions[chosen])
            rate = learning_rate(epoch + step / steps, config)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = loss_of(model(batch.images), batch, config.loss)
            optimiser.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(model, optimiser, max_norm=config.optimiser.clip_norm)
            optimiser.step()
            update_average(average, network, epoch * steps + step, config.optimiser.ema_decay)
            total_loss += loss.item()

        predicted = predict(average, held_out.images, device=fabric.device)
        reached = accuracy(predicted.probabilities, held_out.majority).value
        reached_original = accuracy(predicted.auxiliary, held_out.labels).value
        state["epoch"] = epoch + 1
        if reached > state["best"]:
            state["best"] = reached
            save_atomically(fabric, run / "best.ckpt", {"average": average, "epoch": epoch + 1})
        save_atomically(fabric, run / "last.ckpt", state)
        line = {
            "epoch": epoch + 1,
            "loss": round(total_loss / steps, 4),
            "validation_ferplus": round(reached, 4),
            "validation_fer2013": round(reached_original, 4),
            "learning_rate": round(rate, 5),
            "seconds": round(time.monotonic() - started, 1),
        }
        with (run / "metrics.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        fabric.print(json.dumps(line))


def versions() -> dict[str, str | None]:
    """What a run was made with: the commit, None outside of a checkout, and the versions that matter."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": head.stdout.strip() or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def training_rows(splits: dict[str, FaceImages], config: RunConfig) -> tuple[FaceImages, FaceImages]:
    """(training, validation) rows of the Training split, free of PublicTest's and of each other's images."""
    clean = without_copies_of(splits["Training"], splits["PublicTest"])
    rows, held_out = carve_validation(clean, config.validation_share, config.seed)
    return without_copies_of(rows, held_out), held_out


def loss_of(outputs: Outputs, batch: Batch, config: LossConfig) -> Tensor:
    """Cross-entropy to FER+ distributions, to FER-2013's labels on the second head, and load balancing."""
    usable = batch.distributions.sum(dim=1)
    log_probabilities = functional.log_softmax(outputs.logits, dim=1)
    main = -(batch.distributions * log_probabilities).sum() / usable.sum().clamp(min=1)
    auxiliary = functional.cross_entropy(
        outputs.auxiliary, batch.labels, label_smoothing=config.label_smoothing
    )
    balance = sum(
        (load_balancing_loss(outputs.weights[:, i], outputs.scores[:, i]) for i in range(2)),
        start=torch.zeros((), device=main.device),
    )
    return main + config.auxiliary * auxiliary + config.load_balancing * balance


def make_optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.SGD:
    """Weight decay on matrices and kernels only: biases and norms keep their scale."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    return torch.optim.SGD(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
    )


def learning_rate(epoch: float, config: RunConfig) -> float:
    """Linear warm-up, then cosine to zero at the last epoch."""
    peak, warmup = config.optimiser.learning_rate, config.optimiser.warmup_epochs
    if epoch < warmup:
        return peak * (epoch + 0.01) / (warmup + 0.01)
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (config.epochs - warmup)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Exponential moving average of weights; young averages follow faster. Buffers are averaged alike."""
    decay = min(decay, (step + 1) / (step + 10))
    for mean, current in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(current, 1 - decay)
        else:
            mean.copy_(current)


def save_atomically(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """A full disk or Ctrl-C leaves the file of the epoch before."""
    partial = path.with_suffix(".partial")
    fabric.save(partial, state)
    partial.replace(path)
