"""What a run is made from: configuration, code, and the files it starts from."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from service.core.manifest import digest
from training.answers import Answers
from training.checkpoint import checkpoint_file, config_of
from training.config import RunConfig, differences, read_config
from training.datasets.card import contents, labels_sha256
from training.datasets.faces import Dataset, LabelledFaces
from training.evaluation.rows import HELD_OUT
from training.models.tfjs import weight_files


@dataclass(frozen=True)
class Start:
    """Optional files that a run starts from.

    weights: a state dict or checkpoint that initialises the network. weights_kind: their name in the registry
    of backbones, where the file does not show it. teachers: checkpoints to distil from. answers: a file with
    the answers of teachers, in their place.
    """

    weights: Path | None = None
    weights_kind: str | None = None
    teachers: tuple[Path, ...] = ()
    answers: Path | None = None


def write_data_card(run: Path, dataset: Dataset, training: LabelledFaces, held_out: LabelledFaces) -> None:
    """Write `data.json`. training, held_out: the rows of the run, without copies."""
    splits = {"training": training, HELD_OUT: held_out}
    card = {
        "dataset": dataset.name,
        "licences": dataset.licences,
        "problems": dataset.problems,
        **contents(splits),
        "labels_sha256": {split: labels_sha256(rows) for split, rows in splits.items()},
    }
    (run / "data.json").write_text(json.dumps(card, indent=1))


def record_versions(path: Path, entry: dict[str, Any]) -> None:
    """Append one entry per start of the run, because another version of the code may resume it."""
    entries = json.loads(path.read_text()) if path.is_file() else []
    path.write_text(json.dumps([*entries, entry], indent=1))


def versions(start: Start) -> dict[str, Any]:
    """The code, versions of packages, and digests of the starting files.

    commit: of the checkout that has this package, None outside of a checkout. changed: whether files of that
    checkout differ from the commit.
    """
    commit, changed = checkout(Path(__file__).parent)
    return {
        "commit": commit,
        "changed": changed,
        "package": version("expressnet-training"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kornia": version("kornia"),
        "weights_sha256": None if start.weights is None else content_sha256(start.weights),
        "teachers_sha256": digests(start),
        "answers_sha256": None if start.answers is None else digest(start.answers),
    }


def digests(start: Start) -> list[str]:
    """SHA-256 of each teacher."""
    if start.answers is not None:
        return Answers.load(start.answers).teachers
    return [content_sha256(teacher) for teacher in start.teachers]


def content_sha256(path: Path) -> str:
    """SHA-256 of the weights that a path means: a file, a run's folder, or a manifest with one file."""
    return digest(weight_files(path)[0] if path.suffix == ".json" else checkpoint_file(path))


def checkout(package: Path) -> tuple[str | None, bool]:
    """(commit, whether tracked files differ from it) of the checkout that tracks `package`.

    It is (None, False) outside of a checkout, and for an environment in somebody's checkout.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None, False
    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))


def refuse_changes(run: Path, config: RunConfig, start: Start) -> None:
    """Raises `ValueError`, which names the keys, when a run is resumed with other settings or files.

    A resumed run may have more or fewer epochs.
    """
    configs = read_config(run / "config.yaml"), config
    changed = differences(*(each.model_dump(mode="json", exclude={"epochs"}) for each in configs))
    begun, resumed = json.loads((run / "versions.json").read_text())[-1], versions(start)
    for key, what in (("weights_sha256", "initial weights"), ("teachers_sha256", "teachers")):
        if begun[key] != resumed[key]:
            changed.append(f"the {what} are others")
    if changed:
        raise ValueError(f"{run} cannot be resumed, because its configuration changed: {'; '.join(changed)}")


def refuse_what_learned_validation(start: Start, config: RunConfig) -> None:
    """Raises `ValueError` for a checkpoint of one of the data sets that held out other rows."""
    for file in (*start.teachers, *([] if start.weights is None else [start.weights])):
        other = config_of(file)
        if (
            other is not None
            and other.dataset_names & config.dataset_names
            and (other.validation_share < config.validation_share or other.fold != config.fold)
        ):
            raise ValueError(
                f"{file} was trained on rows that validate this run: its validation_share "
                f"was {other.validation_share:g}, this run's is {config.validation_share:g}; "
                f"its fold was {other.fold}, this run's is {config.fold}"
            )
