"""Pictures as a network takes them, on its device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from training.datasets.faces import Pictures
from training.models import Network

CPU_LIMIT_BYTES = 2 << 30
GPU_SHARE = 0.5  # of the free memory; the network and its gradients need the rest
BLOCK = 1024


class Images:
    """N pictures in the size and colours of a network.

    keep: hold all of them on the device as bytes if they fit, so that each picture is decoded once. Otherwise
    they are read again for each step, by a thread that is one step ahead.
    """

    def __init__(
        self, pictures: Pictures, network: Network, device: torch.device, *, keep: bool = False
    ) -> None:
        self._pictures, self.device = pictures, device
        self._size, self._channels = network.size, network.channels
        self.kept: Tensor | None = None
        shape = (len(pictures), network.channels, network.size, network.size)
        if keep and np.prod(shape, dtype=np.int64) <= limit_bytes(device):
            self.kept = torch.empty(shape, dtype=torch.uint8, device=device)
            for rows in in_order(len(pictures), BLOCK):
                self.kept[rows.to(device)] = self._read(rows).to(device)

    def __len__(self) -> int:
        return len(self._pictures)

    def steps(self, order: Sequence[Tensor] | Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each step: (its rows, int64 [n] on the CPU; their images, float [n,C,S,S] in [0, 1])."""
        if (kept := self.kept) is None:
            steps = self._read_ahead(order)
        else:
            steps = ((rows, kept[rows.to(self.device)]) for rows in order)
        for rows, pixels in steps:
            yield rows, pixels.to(self.device, non_blocking=True).float() / 255

    def _read_ahead(self, order: Sequence[Tensor] | Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
            following = reader.submit(self._read, order[0])
            for rows, after in itertools.pairwise(order):
                ready, following = following.result(), reader.submit(self._read, after)
                yield rows, ready
            yield order[-1], following.result()

    def _read(self, rows: Tensor) -> Tensor:
        pixels = torch.from_numpy(self._pictures.read(rows.numpy(), size=self._size, channels=self._channels))
        return pixels.pin_memory() if self.device.type == "cuda" else pixels


def in_order(count: int, batch: int) -> list[Tensor]:
    """All rows from the first to the last, in steps of `batch`: int64 [n] each."""
    return [torch.arange(start, min(start + batch, count)) for start in range(0, count, batch)]


def limit_bytes(device: torch.device) -> int:
    """How much of a device's memory pictures may fill."""
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    return CPU_LIMIT_BYTES
