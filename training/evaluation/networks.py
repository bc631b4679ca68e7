"""Networks to measure: checkpoints, and classifiers of a model repository."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from service.core.manifest import (
    TORCHSCRIPT,
    ClassifierManifest,
    manifest_path,
    read_manifest,
    verified_model_path,
)
from training.checkpoint import load_trained
from training.config import RunConfig
from training.datasets.faces import LabelledFaces
from training.evaluation.predict import Floats, predict
from training.models.folding import folded

BATCH = 256
# A served model can answer 0, whose logarithm is infinite.
SMALLEST = 1e-7


@dataclass(frozen=True)
class Measurable:
    """A network of any kind.

    name: as the user wrote it. config: of its run. logits: rows -> float32 [N,C] over `emotions`.
    calibrated: whether a softmax of the logits is calibrated already.
    """

    name: str
    emotions: tuple[str, ...]
    config: RunConfig
    logits: Callable[[LabelledFaces], Floats]
    calibrated: bool


def load_network(name: str, repository: Path, device: torch.device) -> Measurable:
    """Load a checkpoint, a run's folder, or `MODEL` or `MODEL:VERSION` of a model repository.

    device: of the network of a checkpoint.
    Raises `ValueError` when the name is none of these.
    """
    if Path(name).exists():
        trained = load_trained(Path(name))
        network = folded(trained.network).to(device)
        return Measurable(
            name,
            trained.emotions,
            trained.config,
            lambda rows: predict(network, rows).logits,
            calibrated=False,
        )
    model, _, version = name.partition(":")
    if not manifest_path(repository, model).exists():
        raise ValueError(f"{name} is neither a checkpoint, nor a run, nor a model of {repository}")
    manifest = read_classifier(repository, model, version or None)
    path = verified_model_path(repository, manifest, TORCHSCRIPT)
    return Measurable(
        name,
        manifest.labels,
        recorded_config(manifest),
        lambda rows: np.log(np.maximum(served_answers(path, rows, manifest.input.size), SMALLEST)),
        calibrated=True,
    )


def read_classifier(repository: Path, name: str, version: str | None) -> ClassifierManifest:
    """The manifest of a classifier. Raises `ValueError` for a model of another kind."""
    manifest = read_manifest(repository, name, version)
    if not isinstance(manifest, ClassifierManifest):
        raise ValueError(f"{name} is a {manifest.kind}, not a classifier")
    return manifest


def recorded_config(manifest: ClassifierManifest) -> RunConfig:
    """The configuration of the run that trained a served model."""
    recorded = manifest.training.config
    return RunConfig.model_validate({key: recorded[key] for key in RunConfig.model_fields if key in recorded})


@torch.inference_mode()
def served_answers(path: Path, rows: LabelledFaces, size: int) -> Floats:
    """Calibrated probabilities float32 [N,C] of a model file."""
    module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    parts = []
    for start in range(0, len(rows), BATCH):
        chosen = np.arange(start, min(start + BATCH, len(rows)))
        faces = torch.from_numpy(rows.pictures.read(chosen, size=size, channels=3))
        parts.append(module(faces)[0].numpy())
    answers: Floats = np.concatenate(parts)
    return answers
