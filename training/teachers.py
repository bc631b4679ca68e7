"""Networks that teach another network: knowledge distillation (Hinton et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training.checkpoint import load_trained
from training.datasets.faces import Dataset
from training.evaluation.predict import answer
from training.images import Images
from training.losses import Taught
from training.models import Network, Outputs
from training.models.folding import folded


class Teachers(Network):
    """Trained networks that answer with the mean of their logits. Gate weights are the first network's."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.size, self.channels = networks[0].size, networks[0].channels
        self.networks = nn.ModuleList(networks)
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, paths: Sequence[Path], student: Network, dataset: Dataset) -> Teachers:
        """Load checkpoints. Raises `ValueError` when a teacher's heads or input differ from the student's."""
        return cls([_loaded(path, student, dataset) for path in paths])

    def forward(self, images: Tensor) -> Outputs:
        answers: list[Outputs] = [network(images) for network in self.networks]
        return answers[0]._replace(
            logits=torch.stack([each.logits for each in answers]).mean(dim=0),
            auxiliary=torch.stack([each.auxiliary for each in answers]).mean(dim=0),
        )

    @torch.no_grad()
    def teach(self, images: Tensor) -> Taught:
        """The teachers' answers for a batch of images, as the student gets them."""
        answers = self(images)
        return Taught(answers.logits, answers.auxiliary)

    def teach_once(self, images: Images) -> Taught:
        """The teachers' answers for all images, the mean of each image and its mirror, on the CPU."""
        answers = answer(self, images, flip=True)
        return Taught(answers.logits, answers.auxiliary)


def _loaded(path: Path, student: Network, dataset: Dataset) -> Network:
    taught = load_trained(path)
    for what, teacher, own in (
        ("emotions", taught.served, dataset.served),
        ("auxiliary emotions", taught.auxiliary, dataset.auxiliary),
        (
            "input (channels, px)",
            (taught.network.channels, taught.network.size),
            (student.channels, student.size),
        ),
    ):
        if teacher != own:
            raise ValueError(f"the teacher's {what} are {teacher}, the student's {own}")
    return folded(taught.network)
