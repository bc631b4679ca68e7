"""Any folder of pictures: one folder per emotion, or none at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from service.core.manifest import EMOTIONS
from training.datasets.faces import Dataset, DatasetError, FilePictures
from training.datasets.faults import Faults, not_found
from training.datasets.files import PICTURE_SUFFIXES, ImageEntry, load_entries, make_dataset, pictures_below
from training.datasets.labels import emotion_of, read_label_map

TRAINING_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")
LAYOUT = (
    "Its layout is train/EMOTION/*.jpg with test/EMOTION/*.jpg or val/EMOTION/*.jpg, or EMOTION/*.jpg alone"
)


def load_folder(folder: Path, *, skip_bad: bool = False) -> Dataset:
    """Load `train/<emotion>/` with optional `test/<emotion>/` or `val/<emotion>/`, or `<emotion>/` alone.

    Raises `DatasetError` for a folder whose name is not a known emotion, and for bad files unless `skip_bad`.
    """
    faults = Faults(folder, skip_bad=skip_bad)
    return make_dataset("folder", folder, list_splits(folder, _splits(folder), faults), faults)


def load_pictures(folder: Path) -> FilePictures:
    """All pictures of a folder at any depth, without labels, sorted by path.

    Raises `DatasetError` when no picture is found or a picture cannot be read.
    """
    faults = Faults(folder, skip_bad=False)
    files = list(pictures_below(folder, faults))
    load_entries([ImageEntry("all", file, -1) for file in files], folder, faults)
    faults.raise_or_report()
    if not files:
        raise not_found("pictures", folder, sorted(PICTURE_SUFFIXES), "Pictures may be at any depth")
    return FilePictures(tuple(files))


def list_splits(
    folder: Path, splits: Mapping[str, str], faults: Faults, *, known: Sequence[str] = EMOTIONS
) -> Iterator[ImageEntry]:
    """The pictures of `folder/<subfolder>/<emotion>/`, sorted. splits: subfolder -> name of the split.

    Raises `DatasetError` for a folder whose name is no emotion of `known` or of the folder's `emotions.yaml`.
    """
    own = read_label_map(folder)
    for subfolder, split in splits.items():
        for group in _folders_in(folder / subfolder):
            emotion = emotion_of(group.name, own, f"the name of {group}", known)
            for file in pictures_below(group, faults):
                if emotion is None:
                    faults.skip(f"{split} images labelled {group.name}")
                else:
                    yield ImageEntry(split, file, emotion)


def _splits(folder: Path) -> dict[str, str]:
    """Subfolder -> name of the split, as `list_splits` takes them."""
    found = {path.name: path.name.lower() for path in _folders_in(folder)}
    if not found:
        raise not_found("pictures", folder, ("train/", *EMOTIONS), LAYOUT)
    training = [name for name, lowered in found.items() if lowered in TRAINING_NAMES]
    if not training and not any(lowered in TEST_NAMES for lowered in found.values()):
        return {".": "training"}
    others = {name: lowered for name, lowered in found.items() if name not in training}
    unknown = [name for name, lowered in others.items() if lowered not in TEST_NAMES]
    if len(training) != 1 or unknown:
        raise DatasetError(
            f"{folder} has the folders {', '.join(found)}; allowed are one of {', '.join(TRAINING_NAMES)}, "
            f"and any of {', '.join(TEST_NAMES)}"
        )
    return {training[0]: "training"} | others


def _folders_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
