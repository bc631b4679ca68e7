"""What two group answers tell of the one face by which they differ; see docs/explanation/responsible-use.md.

`python -m tests.bench.differencing DATA`, where DATA is FER-2013's folder (docs/reference/datasets.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.core.manifest import TORCHSCRIPT, read_manifest, verified_model_path
from service.pipeline.groups import GROUP_STEP
from service.settings import Settings
from training.datasets import load
from training.export_subgroups import served_answers

TRIALS = 20_000
STEPS = (0.001, 0.01, GROUP_STEP, 0.1)
GROUPS = (5, 10, 20, 50)


def guessed(answers: NDArray[np.float32], faces: int, step: float) -> float:
    """Share of faces whose emotion the difference of two rounded means names: of `faces`, and of one more."""
    generator = np.random.default_rng(0)
    right = 0
    for _ in range(TRIALS):
        group = answers[generator.choice(len(answers), faces + 1, replace=False)].astype(np.float64)
        without, whole = (np.rint(part.mean(axis=0) / step) * step for part in (group[1:], group))
        right += int(((faces + 1) * whole - faces * without).argmax() == group[0].argmax())
    return right / TRIALS


def main(data: Path) -> None:
    settings = Settings()
    manifest = read_manifest(settings.model_repository, settings.classifier)
    assert manifest.input is not None
    rows = load("fer2013", data).tests["PublicTest"]
    path = verified_model_path(settings.model_repository, manifest, TORCHSCRIPT)
    answers = served_answers(path, rows, manifest.input.size)
    most = np.bincount(answers.argmax(axis=1)).max() / len(answers)
    print(f"{len(answers)} faces; always the commonest answer: {most:.0%}\n")
    print(f"| faces without it | {' | '.join(f'steps of {step}' for step in STEPS)} |")
    print("| --- |" + " --- |" * len(STEPS))
    for faces in GROUPS:
        shares = " | ".join(f"{guessed(answers, faces, step):.0%}" for step in STEPS)
        print(f"| {faces} | {shares} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
