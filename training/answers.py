"""Answers of teachers in a file. Training from the file needs no teacher.

For clean images, the file has one answer per training row. For augmented images, it has the answers for the
recorded views of each row (Shen and Xing, 2022): the seeds of the configuration repeat the same views.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from training.atomic import replacing
from training.config import RunConfig, differences
from training.datasets.card import labels_sha256
from training.datasets.faces import Dataset, LabelledFaces
from training.losses import TeacherLogits
from training.models import Network


@dataclass(frozen=True)
class Answers:
    """Recorded answers.

    logits: float16 [M,C] and [M,A] when read; M is the number of rows, or of `Batch.places`. made_from: what
    the answers depend on. views: number of recorded epochs, 0 for clean images. teachers: SHA-256 of each.
    """

    logits: TeacherLogits
    made_from: dict[str, Any]
    views: int
    teachers: list[str]

    def save(self, path: Path) -> None:
        logits = {name: part.half() for name, part in self.logits._asdict().items()}
        with replacing(path) as partial:
            torch.save({**vars(self), "logits": logits}, partial)

    @classmethod
    def load(cls, path: Path) -> Answers:
        """Raises `ValueError` for a file of another kind."""
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return cls(**{**content, "logits": TeacherLogits(**content["logits"])})
        except FileNotFoundError:
            raise
        except Exception as error:  # torch.load raises whatever its unpickler meets
            raise ValueError(f"{path} is not a file of `expressnet teach`: {error}") from error

    def refuse_others(self, made_from: dict[str, Any], views: int) -> None:
        """Raises `ValueError`, which names what differs, for a run that the answers are not for."""
        # Answers for clean images depend on fewer keys.
        shared = [key for key in self.made_from if key in made_from]
        found = differences(*({key: each[key] for key in shared} for each in (self.made_from, made_from)))
        if views > self.views:
            found.append(f"the views were {self.views} and are {views}: set augment.views or epochs")
        if found:
            raise ValueError(f"the answers were recorded for another run: {'; '.join(found)}")


def depends_on(
    config: RunConfig, dataset: Dataset, rows: LabelledFaces, student: Network, *, processes: int = 1
) -> dict[str, Any]:
    """What the answers for the training `rows` of a run depend on, apart from the teachers."""
    settings = config.model_dump(mode="json")
    settings["augment"].pop("views")
    clean = {
        "distillation_inputs": config.loss.distillation_inputs,
        "rows_sha256": labels_sha256(rows),
        "emotions": list(dataset.emotions),
        "label emotions": list(dataset.label_emotions),
    }
    if config.loss.distillation_inputs == "clean":
        return clean
    return clean | {
        "channels": student.channels,
        "size": student.size,
        "processes": processes,
        "kornia": version("kornia"),
        **{key: settings[key] for key in ("dataset", "augment", "batch", "balanced_sampling", "seed")},
    }
