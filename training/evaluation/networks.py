"""Networks to measure: checkpoints, and classifiers of a model repository."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from service.core.manifest import (
    TORCHSCRIPT,
    ClassifierManifest,
    Manifest,
    manifest_path,
    read_manifest,
    verified_model_path,
)
from training.checkpoint import load_trained
from training.config import RunConfig
from training.datasets.faces import LabelledFaces
from training.evaluation.predict import Predictions, predict
from training.images import in_order
from training.models.folding import folded

BATCH = 256
# A served model can answer 0, whose logarithm is infinite.
SMALLEST = 1e-7


@dataclass(frozen=True)
class Measurable:
    """A network of any kind.

    name: as the user wrote it. config: of its run. predict: answers for N faces over `emotions`.
    calibrated: whether the probabilities are calibrated already.
    """

    name: str
    emotions: tuple[str, ...]
    config: RunConfig
    predict: Callable[[LabelledFaces], Predictions]
    calibrated: bool


def load_network(name: str, repository: Path, device: torch.device) -> Measurable:
    """Load a checkpoint, a run's folder, or `MODEL` or `MODEL:VERSION` of a model repository.

    device: of the network of a checkpoint.
    Raises `ValueError` when the name is none of these.
    """
    if Path(name).exists():
        trained = load_trained(Path(name))
        network = folded(trained.network).to(device)
        answer = partial(predict, network)
        return Measurable(name, trained.emotions, trained.config, answer, calibrated=False)
    model, _, version = name.partition(":")
    if not manifest_path(repository, model).exists():
        raise ValueError(f"{name} is neither a checkpoint, nor a run, nor a model of {repository}")
    manifest = read_classifier(repository, model, version or None)
    answer = partial(served_answers, load_served(repository, manifest), size=manifest.input.size)
    return Measurable(name, manifest.labels, recorded_config(manifest), answer, calibrated=True)


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


def load_served(repository: Path, manifest: Manifest) -> torch.jit.ScriptModule:
    """The TorchScript file of a model. Raises `ModelFileError` when its digest is not the manifest's."""
    path = verified_model_path(repository, manifest, TORCHSCRIPT)
    module: torch.jit.ScriptModule = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return module


@torch.inference_mode()
def served_answers(module: torch.jit.ScriptModule, rows: LabelledFaces, *, size: int) -> Predictions:
    """Answers of a served classifier for faces of `size` px, without those that are not served."""
    parts = []
    for chosen in in_order(len(rows), BATCH):
        faces = torch.from_numpy(rows.pictures.read(chosen.numpy(), size=size, channels=3))
        parts.append(module(faces)[:2])
    probabilities, weights = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    logits = np.log(np.maximum(probabilities, SMALLEST))
    return Predictions(probabilities, logits[:, :0], logits, weights, np.zeros_like(weights), logits[:, :0])
