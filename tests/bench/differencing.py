"""How often two group answers reveal the emotion of the one face that only one of the groups contains.

`python -m tests.bench.differencing DATA`, where DATA is FER-2013's folder (docs/reference/datasets.md).
docs/explanation/responsible-use.md has the results.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.core.manifest import read_manifest
from service.pipeline.groups import GROUP_STEP
from service.settings import Settings
from training.datasets import load
from training.evaluation.networks import load_served, served_answers

TRIALS = 20_000
STEPS = (0.001, 0.01, GROUP_STEP, 0.1)
GROUPS = (5, 10, 20, 50)


def revealed_share(answers: NDArray[np.float32], faces: int, step: float) -> float:
    """The share of faces whose emotion follows from two rounded means: with the face, and without it.

    faces: the number of other faces in the group.
    """
    generator = np.random.default_rng(0)
    correct = 0
    for _ in range(TRIALS):
        group = answers[generator.choice(len(answers), faces + 1, replace=False)].astype(np.float64)
        without_face, with_face = (np.rint(part.mean(axis=0) / step) * step for part in (group[1:], group))
        correct += int(((faces + 1) * with_face - faces * without_face).argmax() == group[0].argmax())
    return correct / TRIALS


def main(data: Path) -> None:
    settings = Settings()
    manifest = read_manifest(settings.model_repository, settings.classifier)
    assert manifest.input is not None
    rows = load("fer2013", data).tests["PublicTest"]
    module = load_served(settings.model_repository, manifest)
    answers = served_answers(module, rows, size=manifest.input.size).probabilities
    most_common = np.bincount(answers.argmax(axis=1)).max() / len(answers)
    print(f"{len(answers)} faces; always naming the most common emotion is right for {most_common:.0%}\n")
    print(f"| other faces | {' | '.join(f'steps of {step}' for step in STEPS)} |")
    print("| --- |" + " --- |" * len(STEPS))
    for faces in GROUPS:
        shares = " | ".join(f"{revealed_share(answers, faces, step):.0%}" for step in STEPS)
        print(f"| {faces} | {shares} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
