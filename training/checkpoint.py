"""Self-describing checkpoints: weights, configuration and the emotions of both heads."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from training.atomic import replacing
from training.config import RunConfig
from training.models import Network, build


@dataclass(frozen=True)
class Trained:
    """A network with its averaged weights, in eval mode on the CPU.

    emotions and label_emotions: what its main head and its label head answer, in output order. label_emotions
    may be empty.
    """

    network: Network
    config: RunConfig
    emotions: tuple[str, ...]
    label_emotions: tuple[str, ...]
    epoch: int


def checkpoint_file(path: Path) -> Path:
    """`best.ckpt` of a run's folder; any other path is returned unchanged."""
    return path / "best.ckpt" if path.is_dir() else path


def load_trained(path: Path) -> Trained:
    """Load a checkpoint, or `best.ckpt` of a run's folder. Raises `ValueError` for any other file."""
    file = checkpoint_file(path)
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        config = RunConfig.model_validate(content["config"])
        emotions, label_emotions = tuple(content["emotions"]), tuple(content["label_emotions"])
        network = build(config.network, emotions=len(emotions), label_emotions=len(label_emotions))
        network.load_state_dict(content["average"])
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ValueError(f"{file} is not a checkpoint of a run: {error}") from error
    return Trained(network.eval(), config, emotions, label_emotions, content["epoch"])


def describe(
    config: RunConfig, emotions: tuple[str, ...], label_emotions: tuple[str, ...], epoch: int
) -> dict[str, Any]:
    """The content that `load_trained` needs beside the weights."""
    return {
        "config": config.model_dump(mode="json"),
        "emotions": list(emotions),
        "label_emotions": list(label_emotions),
        "epoch": epoch,
    }


def config_of(path: Path) -> RunConfig | None:
    """The configuration of a checkpoint or a run's folder; None for other weights."""
    try:
        return load_trained(path).config
    except ValueError:
        return None


def save_trained(trained: Trained, path: Path, *, weights: torch.dtype = torch.float32) -> None:
    """Write a file for `load_trained`. weights: their type; vectors, such as batch norms, keep 32 bits."""
    described = describe(trained.config, trained.emotions, trained.label_emotions, trained.epoch)
    state = trained.network.state_dict()
    average = {name: value.to(weights) if value.dim() > 1 else value for name, value in state.items()}
    with replacing(path) as partial:
        torch.save({"average": average, **described}, partial)


def save_atomically(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Save `state`. A full disk or Ctrl-C does not change the existing file."""
    # All processes save together, and only the first one writes.
    with replacing(path) if fabric.is_global_zero else nullcontext(path) as target:
        fabric.save(target, state)
