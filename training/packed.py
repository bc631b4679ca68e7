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

from training.checkpoint import load_trained, save_trained
from training.datasets import load
from training.datasets.joined import concatenated
from training.device import choose_device
from training.evaluation.predict import answer
from training.recipe import TrainingStage, read_recipe
from training.stages import repeat

TRAINING_SHARE = 0.8  # of the time; the rest is for the answers and the files
FILE_BYTES = 16_000_000
BLOCK_BYTES = 4 << 20  # compressed in parallel
# The two bytes of a weight are unlike each other.
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
    """Write `NAME.json` and `NAME.tar.xz.NN`, the parts of an archive.

    The archive has the best weights with 16 bits, their logits for all rows, and the records of the run.
    """
    trained = load_trained(run)
    # float16 compresses to 85 % and bfloat16 to 70 %.
    large = 2 * sum(value.numel() for value in trained.network.state_dict().values()) > FILE_BYTES
    save_trained(trained, run / "weights.ckpt", weights=torch.bfloat16 if large else torch.float16)
    written, config = load_trained(run / "weights.ckpt"), trained.config
    dataset = load(config.dataset, data, ferplus_votes=config.ferplus_votes)
    splits = {"training": dataset.training, **dataset.tests}
    rows = concatenated(list(splits.values()))
    outputs = answer(written.network.to(choose_device()), rows)
    np.savez_compressed(
        run / "logits.npz",
        names=rows.names,
        splits=np.repeat(list(splits), [len(each) for each in splits.values()]),
        logits=outputs.logits.half().numpy(),
        label=outputs.label_logits.half().numpy(),
    )
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = plan | {
        "epochs": epochs,
        "chosen_on_validation": epochs[trained.epoch - 1],
        "chosen_on_the_test_as_by_the_authors": {
            test: max(epochs, key=lambda epoch: float(epoch[test]))
            for test in dataset.tests
            if config.measure_tests
        },
    }
    (out / f"{name}.json").write_text(json.dumps(figures, indent=1))
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


if __name__ == "__main__":
    folder, out, recipe = map(Path, sys.argv[1:4])
    run_recipe(folder, out, recipe, float(sys.argv[4]))
