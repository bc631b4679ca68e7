"""Scores epochs on validation rows, and ends a run that no longer improves."""

from __future__ import annotations

from typing import Any

import torch

from training.config import EarlyStoppingConfig
from training.datasets.faces import Dataset, Ints, LabelledFaces
from training.evaluation.predict import Floats, answer
from training.images import Images
from training.losses import Objective
from training.models import Network, Outputs
from training.rows import Targets


class Validation:
    """The validation rows of a run, on its device."""

    def __init__(
        self,
        rows: LabelledFaces,
        dataset: Dataset,
        network: Network,
        objective: Objective,
        device: torch.device,
    ) -> None:
        self._rows, self._objective = rows, objective
        self._images = Images(rows.pictures, network, device, keep=True)
        targets = Targets.of(rows, dataset)
        self._targets = targets.main.to(device), targets.label.to(device)

    def figures(self, network: Network) -> dict[str, float]:
        """The training loss without teachers, and the accuracy of each head that has labels."""
        outputs = answer(network, self._images)
        there = Outputs(*(output.to(self._images.device) for output in outputs))
        figures = {
            "validation_loss": self._objective(there, *self._targets).item(),
            "validation": accuracy(outputs.logits.numpy(), self._rows.majority),
        }
        if outputs.label_logits.shape[1]:
            figures["validation_label_head"] = accuracy(outputs.label_logits.numpy(), self._rows.labels)
        return figures


def accuracy(answers: Floats, labels: Ints) -> float:
    """Share of right answers among the labelled rows. answers: [N,C]; labels: [N], negative if missing."""
    labelled = labels >= 0
    right = answers.argmax(axis=1) == labels
    return float(right[labelled].mean()) if labelled.any() else 0.0


def score(figures: dict[str, float]) -> float:
    """Mean accuracy of the heads, which chooses the epoch."""
    accuracies = [value for name, value in figures.items() if name != "validation_loss"]
    return sum(accuracies) / len(accuracies)


def count_stale_epochs(state: dict[str, Any], figures: dict[str, float], config: EarlyStoppingConfig) -> None:
    """Count the epochs since the watched figure improved, in `state["stale"]`."""
    watched = -figures["validation_loss"] if config.monitor == "loss" else score(figures)
    state["stale"] = 0 if watched > state["watched"] else state["stale"] + 1
    state["watched"] = max(watched, state["watched"])
