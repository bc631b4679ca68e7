"""Data sets of made-up images in their official layouts."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.config import RunConfig
from training.datasets import affectnet, ferplus


def write_fer2013(folder: Path, rows: Iterable[tuple[str, NDArray[np.integer]]]) -> Path:
    """rows: (usage, grey image of 48x48 px). Every second row is happy.

    The other rows have the label angry and votes for sadness.
    """
    folder.mkdir()
    images, votes = (folder / "fer2013.csv").open("w"), (folder / "fer2013new.csv").open("w")
    with images, votes:
        image_lines, vote_lines = csv.writer(images), csv.writer(votes)
        image_lines.writerow(["emotion", "pixels", "Usage"])
        vote_lines.writerow(["Usage", "Image name", *ferplus.COLUMNS])
        for number, (usage, pixels) in enumerate(rows):
            happy = number % 2
            image_lines.writerow([3 * happy, " ".join(map(str, pixels.ravel())), usage])
            vote_lines.writerow([usage, "", 0, 10 * happy, 0, 10 - 10 * happy, *[0] * 6])
    return folder


def noise(seed: int, side: int = 48) -> NDArray[np.uint8]:
    """uint8 [side,side] grey."""
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def write_picture(path: Path, seed: int, side: int = 48) -> Path:
    """Write the noise of `seed` in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, side)).convert("RGB").save(path)
    return path


def write_list(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_class_folders(folder: Path, pictures: Mapping[str, int], *, suffix: str = ".png") -> Path:
    """pictures: the number of pictures of each subfolder, such as "train/happy". All pictures differ."""
    seed = 0
    for subfolder, count in pictures.items():
        (folder / subfolder).mkdir(parents=True)
        for number in range(count):
            write_picture(folder / subfolder / f"{number}{suffix}", seed)
            seed += 1
    return folder


def write_rafdb(folder: Path, labels: Mapping[str, int]) -> Path:
    """RAF-DB's `basic` folder. labels: 1 to 7 for each name, such as "train_00001"."""
    for seed, name in enumerate(labels):
        write_picture(folder / "Image/aligned" / f"{name}_aligned.jpg", seed, side=100)
    (folder / "EmoLabel").mkdir()
    lines = [f"{name}.jpg {label}\n" for name, label in labels.items()]
    (folder / "EmoLabel/list_patition_label.txt").write_text("".join(lines))
    return folder


def write_affectnet_folders(folder: Path, training: Iterable[int], validation: Iterable[int]) -> Path:
    """AffectNet's folders of cropped faces. The files 0.jpg, 1.jpg and so on have these expressions."""
    for subfolder, seed, expressions in (("train_set", 0, training), ("val_set", 1000, validation)):
        (folder / subfolder / "annotations").mkdir(parents=True)
        for number, expression in enumerate(expressions):
            write_picture(folder / subfolder / "images" / f"{number}.jpg", seed + number, side=224)
            for what, value in (("exp", expression), ("aro", 0.5), ("val", -0.5)):
                np.save(folder / subfolder / "annotations" / f"{number}_{what}.npy", np.array(str(value)))
    return folder


def write_affectnet_lists(folder: Path, lists: Mapping[str, Iterable[int]]) -> Path:
    """AffectNet's lists of photos. lists: the expressions of each list, such as "training.csv".

    Each photo is a black square of 60 px, with a white face from (10, 20) to (30, 40).
    """
    for name, expressions in lists.items():
        images = folder / (affectnet.AUTOMATIC if name.startswith("auto") else affectnet.MANUAL)[0]
        rows = []
        for number, expression in enumerate(expressions):
            photo = np.zeros((60, 60, 3), np.uint8)
            photo[20:40, 10:30] = 255
            photo[-1, -1] = number  # makes the photos differ
            name_in_list = f"{number}/{name}.png"
            (images / name_in_list).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(images / name_in_list)
            box = (10, 20, 20, 20) if expression < 10 else ("NULL",) * 4
            rows.append([name_in_list, *box, "1;2;3", expression, -2, -2])
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([affectnet.COLUMNS, *rows])
    return folder


TINY_BACKBONE = {
    "backbone_size": 48,
    "backbone_width": 0.25,
    "backbone_depths": [1] * 7,
}
"""Options of the compact network for a tiny backbone."""


def tiny_config(**changes: object) -> RunConfig:
    """Two epochs of a network that trains in a second. changes: of the configuration's keys."""
    network = {"name": "compact", "residual_widths": [4, 8], "extractor_width": 1, "features": 8}
    return RunConfig.model_validate(
        {
            "network": network,
            "epochs": 2,
            "batch": 12,
            "precision": "32-true",
            "validation_share": 0.25,
            "optimiser": {"warmup_epochs": 0.5},
        }
        | changes
    )
