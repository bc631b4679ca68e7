"""AffectNet (Mollahosseini et al., 2017) in both published forms and in Kaggle's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from service.core.manifest import EMOTIONS
from training.datasets.faces import Dataset
from training.datasets.faults import Faults, not_found
from training.datasets.files import Box, ImageEntry, make_dataset
from training.datasets.labels import emotion_of
from training.datasets.lists import read_box, read_rows

EXPRESSIONS = (
    *("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
    *("none", "uncertain", "no face"),
)
COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
)
FOLDER_SPLITS = {"train_set": "training", "val_set": "validation"}
MANUAL = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", "Manually_Annotated")
AUTOMATIC = (
    *("Automatically_Annotated_Images", "Automatically_Annotated/Automatically_Annotated_Images"),
    "Automatically_Annotated",
)
# List -> (its split, folder of the list, possible folders of its images). One list per split is read: the
# first that exists.
LISTS = {
    "training.csv": ("training", "Manually_Annotated_file_lists", MANUAL),
    "automatically_annotated.csv": ("training", "Automatically_annotated_file_list", AUTOMATIC),
    "validation.csv": ("validation", "Manually_Annotated_file_lists", MANUAL),
}
KAGGLE_LIST = "labels.csv"
KAGGLE_NOTE = "labels.csv is of Kaggle's part of AffectNet, which has no validation images: no test split"
PUBLISHED_COUNTS = {
    7: {"training": 283_901, "validation": 3_500},
    8: {"training": 287_651, "validation": 4_000},
}
LICENCE = "AffectNet: its authors' licence agreement, research only, no redistribution"
SOURCE = (
    "AffectNet is handed out by its authors to professors and heads of laboratories, for research, under a "
    "signed agreement: http://mohammadmahoor.com/pages/databases/affectnet/"
)


def load_affectnet(folder: Path, classes: Literal[7, 8], *, skip_bad: bool = False) -> Dataset:
    """AffectNet with one label each: folders of cropped faces, lists of photos, or Kaggle's `labels.csv`.

    The official validation set is the test split, because the authors do not publish their test set. Images
    without an emotion are skipped and counted, and with 7 classes also contempt.
    Raises `DatasetError` when files are missing, or bad without `skip_bad`. Other counts than the published
    ones are only reported: subsets are common.
    """
    faults = Faults(folder, skip_bad=skip_bad)
    published: Mapping[str, int] | None = PUBLISHED_COUNTS[classes]
    if all((folder / name).is_dir() for name in FOLDER_SPLITS):
        labelled = _from_folders(folder, faults)
    elif (folder / KAGGLE_LIST).is_file():
        labelled, published = _from_kaggle(folder), None
        faults.note(KAGGLE_NOTE)
    else:
        labelled = _from_lists(folder, faults)
    emotions = EMOTIONS[:classes]
    entries = []
    for split, file, expression, box in labelled:
        if expression in emotions:
            entries.append(ImageEntry(split, file, EMOTIONS.index(expression), box))
        else:
            faults.skip(f"{split} images labelled {expression}")
    return make_dataset(
        f"affectnet{classes}",
        folder,
        entries,
        faults,
        emotions=emotions,
        licence=LICENCE,
        published=published,
    )


_Labelled = tuple[str, Path, str, Box | None]  # split, file, expression, box


def _from_kaggle(folder: Path) -> Iterator[_Labelled]:
    """`labels.csv`: pth (such as anger/image0000006.jpg) and label, which corrects the folder's name."""
    for place, row in read_rows(folder / KAGGLE_LIST, ("pth", "label")):
        emotion = emotion_of(row["label"], {}, f"the label {row['label']!r} of {place}")
        assert emotion is not None
        yield "training", folder / row["pth"], EMOTIONS[emotion], None


def _from_folders(folder: Path, faults: Faults) -> Iterator[_Labelled]:
    """`<split>_set/images/<id>.jpg` with `<split>_set/annotations/<id>_exp.npy`, by id."""
    for subfolder, split in FOLDER_SPLITS.items():
        images, annotations = folder / subfolder / "images", folder / subfolder / "annotations"
        if not images.is_dir() or not annotations.is_dir():
            raise not_found("AffectNet", folder / subfolder, ("images/", "annotations/"), SOURCE)
        labels = {path.name.removesuffix("_exp.npy"): path for path in annotations.glob("*_exp.npy")}
        files = {path.stem: path for path in images.glob("*.jpg")}
        for name in sorted(labels.keys() | files.keys(), key=lambda name: (len(name), name)):
            if name not in labels:
                faults.add("images without an annotation", f"{subfolder}/images/{name}.jpg")
                continue
            try:
                # The authors' files store the number as text.
                expression = _expression(np.load(labels[name], allow_pickle=False).item())
            except (OSError, ValueError, EOFError):
                where = f"{subfolder}/annotations/{name}_exp.npy"
                faults.add("annotations without a number from 0 to 10", where)
            else:
                yield split, images / f"{name}.jpg", expression, None


def _from_lists(folder: Path, faults: Faults) -> Iterator[_Labelled]:
    done: set[str] = set()
    for name, (split, home, image_folders) in LISTS.items():
        path = next((path for path in (folder / name, folder / home / name) if path.is_file()), None)
        if path is None or split in done:
            continue
        done.add(split)
        place = next((place for place in image_folders if (folder / place).is_dir()), None)
        if place is None:
            raise not_found(f"images of {name}", folder, image_folders, SOURCE)
        # Some copies of validation.csv come without a header.
        for line, row in read_rows(path, COLUMNS, without_header=COLUMNS):
            try:
                expression = _expression(row["expression"])
                # Rows without a face have no box either.
                box = read_box(row, COLUMNS[1:5]) if expression in EMOTIONS else None
                yield split, folder / place / row["subdirectory_filepath"], expression, box
            except ValueError as error:
                faults.add("malformed rows", f"{line} ({error})")
    if "training" not in done:
        looked_for = [*(f"{subfolder}/" for subfolder in FOLDER_SPLITS), KAGGLE_LIST, *LISTS]
        looked_for += [f"{home}/{name}" for name, (_, home, _) in LISTS.items()]
        raise not_found("AffectNet", folder, looked_for, SOURCE)


def _expression(number: object) -> str:
    """The name of an expression. Raises `ValueError` unless `number` is a whole number from 0 to 10."""
    text = str(number).strip()
    if text not in map(str, range(len(EXPRESSIONS))):
        raise ValueError(f"expression {text!r} is not from 0 to 10")
    return EXPRESSIONS[int(text)]
