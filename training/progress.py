"""The record of a run: progress bars, log lines, TensorBoard's files and a picture of the curves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from training.atomic import replacing

Item = TypeVar("Item")


class Progress:
    """Writes the record of a run into its folder. Only one of several processes is `enabled`."""

    def __init__(self, run: Path, *, enabled: bool) -> None:
        self._run = run
        self._enabled = enabled
        self._console = Console(quiet=not enabled, highlight=False, soft_wrap=True)
        if enabled:
            run.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def track(self, steps: Iterable[Item], total: int, what: str) -> Iterator[Item]:
        """Show a bar on a terminal, and nothing elsewhere."""
        shown = self._enabled and self._console.is_terminal
        yield from track(steps, what, total, console=self._console, transient=True, disable=not shown)

    def delete_record(self) -> None:
        """Delete the record of an earlier run in the same folder."""
        (self._run / "metrics.jsonl").unlink(missing_ok=True)
        shutil.rmtree(self._run / "tensorboard", ignore_errors=True)

    def record(self, epoch: int, figures: dict[str, float]) -> None:
        """Record a finished epoch."""
        if not self._enabled:
            return
        line = json.dumps({"epoch": epoch, **{name: round(value, 5) for name, value in figures.items()}})
        with (self._run / "metrics.jsonl").open("a") as log:
            log.write(line + "\n")
        self.say(line)
        if all(map(find_spec, ("tensorboard", "matplotlib"))):  # a pack has neither
            self._write_tensorboard(epoch, figures)
            draw_curves(self._run)

    def _write_tensorboard(self, epoch: int, figures: dict[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(self._run / "tensorboard") as writer:
            for name, value in figures.items():
                writer.add_scalar(name, value, epoch)


def draw_curves(run: Path) -> None:
    """Draw `curves.png` from `metrics.jsonl`: losses, and accuracy on validation rows."""
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [line["epoch"] for line in lines]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key, label, colour in (("loss", "training", "#0072b2"), ("validation_loss", "validation", "#d55e00")):
        left.plot(epochs, [line[key] for line in lines], color=colour, marker=".", label=label)
    left.set(xlabel="epoch", title="loss")
    left.legend()
    labels = {"validation": "main head", "validation_label_head": "label head"}
    for (key, label), colour in zip(labels.items(), ("#0072b2", "#d55e00"), strict=True):
        if key in lines[-1]:
            right.plot(epochs, [100 * line[key] for line in lines], color=colour, marker=".", label=label)
    right.set(xlabel="epoch", title="accuracy on validation rows, %")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with replacing(run / "curves.png") as partial:
        figure.savefig(partial, format="png", dpi=110)
