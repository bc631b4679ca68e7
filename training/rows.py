"""Which rows of a data set train, which validate, what they teach, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from service.core.manifest import EMOTIONS
from training.config import RunConfig
from training.datasets.faces import Dataset, LabelledFaces, one_hot
from training.datasets.splits import drop_near_duplicates, split_training


def training_rows(dataset: Dataset, config: RunConfig) -> tuple[LabelledFaces, LabelledFaces]:
    """(training, validation) rows of the training split, without copies of test rows or of each other."""
    rows, held_out = split_training(dataset, config.validation_share, config.fold)
    return drop_near_duplicates(rows, held_out), held_out


def validation_rows(dataset: Dataset, config: RunConfig) -> LabelledFaces:
    """The validation rows of `training_rows`, in half of the time."""
    return split_training(dataset, config.validation_share, config.fold)[1]


def refuse_other_emotions(answered: tuple[str, ...], dataset: Dataset, network: str = "the network") -> None:
    """Raises `ValueError` when the data set has emotions that a network does not answer.

    network: its name in the message.
    """
    if unknown := dataset.emotions[len(answered) :]:
        raise ValueError(
            f"{network} answers {len(answered)} emotions, and {dataset.name} has {len(dataset.emotions)}: "
            f"{network} lacks {', '.join(unknown)}"
        )


def widened(dataset: Dataset, emotions: int) -> Dataset:
    """The same rows for a main head with `emotions` outputs, of which some may have no rows.

    Raises `ValueError` when the rows have more emotions than the head.
    """
    refuse_other_emotions(EMOTIONS[:emotions], dataset)
    return replace(dataset, emotions=EMOTIONS[:emotions])


@dataclass(frozen=True)
class Targets:
    """Targets of each head for every row: main float [N,C], label float [N,A].

    emotion: int64 [N], the most likely emotion, -1 without a target. weights: float [N], how often a
    row is drawn relative to others, None if all are drawn alike.
    """

    main: Tensor
    label: Tensor
    emotion: Tensor
    weights: Tensor | None = None

    @classmethod
    def of(cls, rows: LabelledFaces, dataset: Dataset) -> Targets:
        main = torch.from_numpy(rows.distributions[:, : len(dataset.emotions)])
        label = torch.from_numpy(one_hot(rows.labels, len(dataset.label_emotions)))
        emotion = torch.where(main.sum(dim=1) > 0, main.argmax(dim=1), -1)
        return cls(main, label, emotion, None if rows.weights is None else torch.from_numpy(rows.weights))

    def drawn(self) -> Tensor:
        """[C], how often each emotion is drawn."""
        return self.main.sum(dim=0) if self.weights is None else self.weights @ self.main


def epoch_order(emotion: Tensor, config: RunConfig, epoch: int, weights: Tensor | None = None) -> Tensor:
    """The rows of one epoch, the same in every process: a permutation or a draw with replacement."""
    generator = torch.Generator().manual_seed(seed_of(config.seed, epoch))
    if not config.balanced_sampling and weights is None:
        return torch.randperm(len(emotion), generator=generator)
    # Rows without an emotion count as one more emotion.
    kind = torch.where(emotion < 0, len(EMOTIONS), emotion)
    chance = torch.bincount(kind)[kind].double() ** -config.balanced_sampling
    if weights is not None:
        chance *= weights
    return torch.multinomial(chance, len(emotion), replacement=True, generator=generator)


def seed_of(seed: int, epoch: int, process: int | None = None, step: int | None = None) -> int:
    """An independent seed for each epoch of each run: of its order, of a process, or of one of its steps."""
    # Trailing zeros do not change a SeedSequence.
    entropy = (seed, epoch, *(0 if each is None else each + 1 for each in (process, step)))
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
