"""DiffusionFER (Kim, 2023): generated faces in folders of seven emotions."""

from __future__ import annotations

from pathlib import Path

from service.core.manifest import EMOTIONS
from training.datasets.faces import Dataset
from training.datasets.faults import Faults, not_found
from training.datasets.files import make_dataset
from training.datasets.folders import list_splits

HOME = "DiffusionEmotion_S"
IMAGES = "cropped"
LICENCE = "DiffusionFER: CC0 1.0; generated pictures"
SOURCE = (
    "DiffusionFER is FER-Universe/DiffusionFER on Hugging Face; unpack its archives, such as "
    f"{HOME}/{IMAGES}/angry.zip, into folders of their names"
)


def load_diffusionfer(folder: Path, *, skip_bad: bool = False) -> Dataset:
    """`cropped/<emotion>/` of `DiffusionEmotion_S` or the folder above: seven emotions, no test split.

    Raises `DatasetError` when files are missing, or bad without `skip_bad`.
    """
    faults = Faults(folder, skip_bad=skip_bad)
    root = next((root for root in (folder, folder / HOME) if (root / IMAGES).is_dir()), None)
    if root is None or not any(path.is_dir() for path in (root / IMAGES).iterdir()):
        raise not_found("DiffusionFER", folder, (f"{IMAGES}/EMOTION/", f"{HOME}/{IMAGES}/EMOTION/"), SOURCE)
    seven = EMOTIONS[:7]
    entries = list_splits(root, {IMAGES: "training"}, faults, known=seven)
    return make_dataset("diffusionfer", root, entries, faults, emotions=seven, licence=LICENCE)
