"""Runs one recipe of a pack, and writes what it makes in a few small files."""

from __future__ import annotations

import io
import json
import lzma
import os
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.checkpoint import Trained, load_trained, save_trained
from training.datasets import load
from training.datasets.faces import Dataset
from training.datasets.joined import concatenated
from training.device import choose_device
from training.evaluation.predict import answer
from training.recipe import TrainingStage, read_recipe
from training.rows import validation_rows
from training.stages import repeat
from training.validation import accuracy

TRAINING_SHARE = 0.8  # of the time; the rest is for the answers and the files
FILE_BYTES = 16_000_000
BLOCK_BYTES = 4 << 20  # compressed in parallel
# Two bytes of a weight are unlike each other.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 1, "lp": 1, "pb": 1}]


def run_recipe(folder: Path, out: Path, recipe: Path, end: float) -> None:
    """Train the stages of a recipe, and write the files of each of their runs into `out`.

    end: time when everything should be over.
    """
    plan, runs = json.loads((folder / "plan.json").read_text()), folder / "runs" / recipe.stem
    stages = [stage for stage in read_recipe(recipe).stages if isinstance(stage, TrainingStage)]
    minutes = TRAINING_SHARE * (end - time.time()) / 60 / sum(len(stage.seeds) for stage in stages)
    repeat(recipe, folder / "data", runs, changes=plan["changes"], minutes=minutes)
    out.mkdir(parents=True, exist_ok=True)
    for checkpoint in sorted(runs.rglob("best.ckpt")):
        run = checkpoint.parent
        write_results(run, folder / "data", out, "-".join((recipe.stem, *run.relative_to(runs).parts)), plan)


def write_results(run: Path, data: Path, out: Path, name: str, plan: dict[str, Any]) -> None:
    """Write `NAME.json` and `NAME.tar.xz.NN`.

    The parts have the best weights with 16 bits, the logits of these weights for all rows, and the records
    of the run. `cat NAME.tar.xz.* | tar xJ` joins them.
    """
    trained = load_trained(run)
    # bfloat16 compresses to 70 %, float16 to 85 %.
    large = 2 * sum(value.numel() for value in trained.network.state_dict().values()) > FILE_BYTES
    save_trained(trained, run / "weights.ckpt", weights=torch.bfloat16 if large else torch.float16)
    written = load_trained(run / "weights.ckpt")
    dataset = load(written.config.dataset, data, ferplus_votes=written.config.ferplus_votes)
    logits = _logits(written, dataset)
    np.savez_compressed(run / "logits.npz", **logits)
    figures = _figures(run, written, dataset, logits)
    (out / f"{name}.json").write_text(json.dumps({**plan, **figures}, indent=1))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(run / "weights.ckpt", f"{name}/best.ckpt")
        for file in ("logits.npz", "config.yaml", "data.json", "metrics.jsonl", "versions.json"):
            tar.add(run / file, f"{name}/{file}")
    content = compressed(archive.getvalue())
    for number, start in enumerate(range(0, len(content), FILE_BYTES)):
        (out / f"{name}.tar.xz.{number:02}").write_bytes(content[start : start + FILE_BYTES])


def compressed(content: bytes) -> bytes:
    """The xz format, with blocks that all cores compress."""
    blocks = (content[start : start + BLOCK_BYTES] for start in range(0, len(content), BLOCK_BYTES))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return b"".join(pool.map(partial(lzma.compress, filters=FILTERS), blocks))


def _logits(trained: Trained, dataset: Dataset) -> dict[str, Any]:
    """All rows of a data set in their order: names, splits [N]; logits of the heads float16 [N,C], [N,A]."""
    splits = {"training": dataset.training, **dataset.tests}
    everything = concatenated(list(splits.values()))
    outputs = answer(trained.network.to(choose_device()), everything)
    return {
        "names": everything.names,
        "splits": np.repeat(list(splits), [len(rows) for rows in splits.values()]),
        "logits": outputs.logits.numpy().astype(np.float16),
        "label": outputs.label_logits.numpy().astype(np.float16),
    }


def _figures(run: Path, trained: Trained, dataset: Dataset, logits: dict[str, Any]) -> dict[str, Any]:
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = validation_rows(dataset, trained.config)
    held_out = np.isin(logits["names"], rows.names)
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "epochs": epochs,
        "chosen_on_validation": epochs[trained.epoch - 1],
        "chosen_on_the_test_as_by_the_authors": {
            test: max(epochs, key=lambda epoch: float(epoch[test]))
            for test in dataset.tests
            if trained.config.measure_tests
        },
        "validation_of_the_written_weights": {
            "logits": accuracy(logits["logits"][held_out], rows.majority),
            "label": accuracy(logits["label"][held_out], rows.labels) if trained.label_emotions else None,
            "rows": len(rows),
        },
    }


if __name__ == "__main__":
    folder, out, recipe = map(Path, sys.argv[1:4])
    run_recipe(folder, out, recipe, float(sys.argv[4]))
