"""The speed of spectral and direct convolutions, and of the compact network and the paper's network.

The weights are random, because speed does not depend on them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.bench.figures import SERVED_ROUNDS, Figure, ratio, timed
from training.formats import script
from training.models import build
from training.models.folding import folded
from training.models.served import ServedClassifier
from training.models.spectral import SameConv2d
from training.settings import preset


class Direct(nn.Module):
    """A "same" convolution by torch itself, also for large kernels."""

    def __init__(self, conv: SameConv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, (self.conv.before, self.conv.after, self.conv.before, self.conv.after))
        return functional.conv2d(padded, self.conv.weight, self.conv.bias)


@torch.inference_mode()
def networks() -> Iterator[Figure]:
    torch.set_num_threads(1)
    published: Any = build(preset("paper").network, emotions=8, label_emotions=0).eval()
    spectral: Any = folded(published)
    direct = copy.deepcopy(published.large)
    for index, module in enumerate(direct):
        if isinstance(module, SameConv2d):
            direct[index] = Direct(module)
    image = torch.rand(1, 3, 224, 224)
    relative_error = (direct(image) - spectral.large(image)).abs().max() / direct(image).abs().max()
    slow = timed(
        "FE1, direct convolutions",
        lambda: direct(image),
        "1 thread, 1 face",
        calls=1,
        rounds=SERVED_ROUNDS,
    )
    quick = timed(
        "FE1, spectral convolutions",
        lambda: spectral.large(image),
        f"relative error {relative_error:.0e}",
    )
    yield slow
    yield quick
    yield ratio("FE1 speed-up", slow, quick)

    plain = copy.deepcopy(published)
    plain.large = direct
    paper = timed(
        "the paper's network in plain torch, 1 face",
        lambda: plain(image),
        "1 thread, direct convolutions",
        calls=1,
        rounds=SERVED_ROUNDS,
    )
    yield paper

    compact = build(preset("compact").network, emotions=8, label_emotions=7).eval()
    hints = [
        nn.Linear(network(torch.zeros(1, network.channels, network.size, network.size)).pooled.shape[1], 1)
        for network in (published, compact)
    ]
    scripts = {
        "paper": script(ServedClassifier(spectral, 1.0, hints[0], hints[0])),
        "compact": script(ServedClassifier(folded(compact), 1.0, hints[1], hints[1])),
    }
    for count in (1, 32):
        figures: list[Figure] = []
        for network, name in ((published, "paper"), (compact, "compact")):
            faces = torch.randint(0, 256, (count, 3, network.size, network.size), dtype=torch.uint8)
            served = scripts[name]
            figures.append(timed(f"{name}, {count} faces", partial(served, faces), "1 thread", calls=1))
        yield from figures
        yield ratio(f"compact network's speed-up, {count} faces", figures[0], figures[1])
        if count == 1:
            yield ratio("compact network's speed-up over the paper's in plain torch", paper, figures[1])
