"""Any folder of pictures: one folder per emotion, or none at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from service.core.manifest import EMOTIONS
from training.datasets.faces import Dataset, DatasetError, FilePictures
from training.datasets.faults import Faults, not_found
from training.datasets.files import PICTURE_SUFFIXES, ImageEntry, load_entries, pictures_below

SYNONYMS = {
    "neutral": ("neutral", "neutrality"),
    "happiness": ("happiness", "happy", "joy"),
    "surprise": ("surprise", "surprised"),
    "sadness": ("sadness", "sad"),
    "anger": ("anger", "angry"),
    "disgust": ("disgust", "disgusted"),
    "fear": ("fear", "fearful", "afraid", "scared"),
    "contempt": ("contempt", "contemptuous"),
}
_NUMBER = re.compile(r"^\d+[ ._-]+|[ ._-]+\d+$")
EMOTION_OF = {name: EMOTIONS.index(emotion) for emotion, names in SYNONYMS.items() for name in names}
TRAINING_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")
LAYOUT = (
    "Its layout is train/EMOTION/*.jpg with test/EMOTION/*.jpg or val/EMOTION/*.jpg, or EMOTION/*.jpg alone"
)


def load_folder(folder: Path, *, skip_bad: bool = False) -> Dataset:
    """Load `train/<emotion>/` with optional `test/<emotion>/` or `val/<emotion>/`, or `<emotion>/` alone.

    `served` is the shortest prefix of `EMOTIONS` that has every emotion of the pictures.
    Raises `DatasetError` for a folder whose name is not a known emotion, and for bad files unless `skip_bad`.
    """
    faults = Faults(folder, skip_bad=skip_bad)
    entries = list(list_splits(folder, _splits(folder), faults))
    splits = load_entries(entries, folder, faults)
    problems = faults.raise_or_report()
    training = splits.pop("training", None)
    if training is None:
        raise DatasetError(f"{folder} holds no training pictures. {LAYOUT}")
    return Dataset(
        name="folder",
        served=EMOTIONS[: 1 + max(row.emotion for row in entries)],
        auxiliary=(),
        training=training,
        tests=splits,
        licences=("the pictures' own: not known to this program",),
        problems=problems,
    )


def load_pictures(folder: Path) -> FilePictures:
    """All pictures of a folder at any depth, without labels, sorted by path.

    Raises `DatasetError` when no picture is found or a picture cannot be read.
    """
    faults = Faults(folder, skip_bad=False)
    files = list(pictures_below(folder, faults))
    load_entries([ImageEntry("", file, -1) for file in files], folder, faults)
    faults.raise_or_report()
    if not files:
        raise not_found("pictures", folder, sorted(PICTURE_SUFFIXES), "Pictures may be at any depth")
    return FilePictures(tuple(files))


def list_splits(
    folder: Path, splits: Mapping[str, str], faults: Faults, *, known: Sequence[str] = EMOTIONS
) -> Iterator[ImageEntry]:
    """The pictures of `folder/<subfolder>/<emotion>/`, sorted. splits: subfolder -> name of the split.

    Raises `DatasetError` for a folder whose name is not one of the `known` emotions or their synonyms.
    """
    for subfolder, split in splits.items():
        for group in _folders_in(folder / subfolder):
            if group.name.isdecimal():
                raise DatasetError(
                    f"the name of {group} is a number, which means another emotion in each data set; rename "
                    "the folders to emotions. docs/reference/datasets.md has the numbers of FER-2013, RAF-DB "
                    "and AffectNet"
                )
            emotion = EMOTION_OF.get(_NUMBER.sub("", group.name.lower()))
            if emotion is None or EMOTIONS[emotion] not in known:
                names = ", ".join("/".join(SYNONYMS[emotion]) for emotion in known)
                raise DatasetError(f"the name of {group} is not a known emotion; known names are {names}")
            for file in pictures_below(group, faults):
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
