"""FER-2013 and FER+ in their official files, of images that a test makes up."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.config import RunConfig
from training.datasets.fer2013 import FERPLUS_COLUMNS


def write_fer2013(folder: Path, rows: Iterable[tuple[str, NDArray[np.integer]]]) -> Path:
    """rows: (usage, 48x48 grey); every second one is labelled happy, the others angry and sad."""
    folder.mkdir()
    images, votes = (folder / "fer2013.csv").open("w"), (folder / "fer2013new.csv").open("w")
    with images, votes:
        image_lines, vote_lines = csv.writer(images), csv.writer(votes)
        image_lines.writerow(["emotion", "pixels", "Usage"])
        vote_lines.writerow(["Usage", "Image name", *FERPLUS_COLUMNS, "unknown", "NF"])
        for number, (usage, pixels) in enumerate(rows):
            happy = number % 2
            image_lines.writerow([3 * happy, " ".join(map(str, pixels.ravel())), usage])
            vote_lines.writerow([usage, "", 0, 10 * happy, 0, 10 - 10 * happy, *[0] * 6])
    return folder


def tiny_config(**changes: object) -> RunConfig:
    """Two epochs of a network that trains in a second."""
    network = {
        "name": "expressnet_moe_s",
        "backbone_width": 4,
        "backbone_depth": 1,
        "extractor_width": 1,
        "features": 8,
    }
    return RunConfig.model_validate(
        {"network": network, "epochs": 2, "batch": 12, "validation_share": 0.25} | changes
    )
