"""The augmented batches of each epoch, the same for a student and for the record of its teachers' answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from training.augment import Augmentation, Mixing
from training.config import RunConfig
from training.images import Images
from training.rows import Targets, epoch_order, seed_of


class Batch(NamedTuple):
    """n images of one step, on the device of the images.

    rows: int64 [n] of the training rows. places: int64 [n], where the images are in the sequence of all
    views. Both are on the CPU. images: float [n,C,S,S] in [0, 1], augmented. main: float [n,C] and
    label: float [n,A], target distributions of each head.
    """

    rows: Tensor
    places: Tensor
    images: Tensor
    main: Tensor
    label: Tensor


class Batches:
    """The batches of one of several processes, which share the `config.batch` images of a step.

    Each step has a seed of its own, so that draws of the network, such as dropout, change no view.
    portable: draw random values on the CPU, which is slow for large images. Then all devices have the same
    views, apart from rounding.
    """

    def __init__(
        self,
        images: Images,
        targets: Targets,
        config: RunConfig,
        *,
        process: int = 0,
        processes: int = 1,
        portable: bool = False,
    ) -> None:
        self._images, self._targets, self._config = images, targets, config
        self._process, self._processes = process, processes
        # Kornia draws on the device of its modules.
        self._augmentation = Augmentation(config.augment).to("cpu" if portable else images.device)
        self._mixing = Mixing(config.augment)

    def of(self, epoch: int) -> Iterator[Batch]:
        """The steps of an epoch, counted from 0."""
        config, targets, device = self._config, self._targets, self._images.device
        view = epoch % config.views
        order = epoch_order(targets.emotion, config, view, targets.weights)
        order = order[: len(order) // config.batch * config.batch]
        places = view * len(order) + torch.arange(len(order))
        for step, (rows, originals) in enumerate(self._images.steps(self._own_part(order))):
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed_of(config.seed, view, self._process, step))
                changed = self._mixing(
                    self._augmentation(originals),
                    targets.main[rows].to(device),
                    targets.label[rows].to(device),
                )
            yield Batch(rows, self._own_part(places)[step], *changed)

    def _own_part(self, values: Tensor) -> Tensor:
        """[steps * batch] -> [steps, batch / processes], the part of this process."""
        share = self._config.batch // self._processes
        steps = len(values) // self._config.batch
        return values.reshape(steps, self._processes, share)[:, self._process]
