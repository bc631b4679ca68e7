"""EmoNet-Face Binary (Schuhmann et al., 2025): generated faces, with experts' answers to one question each.

An answer says whether a face shows one of 40 categories.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from service.core.manifest import EMOTIONS
from training.datasets.faces import Dataset
from training.datasets.faults import Faults, not_found
from training.datasets.files import PICTURE_SUFFIXES, ImageEntry, make_dataset
from training.datasets.lists import read_rows

LIST = "binary.csv"
COLUMNS = ("path", "annotator", "value", "emotion")
IMAGES = "images"
# The project's choice: only categories whose own synonyms in the authors' guide.json name the emotion. All
# others are skipped, such as Affection, Awe, Distress, Pain and Shame. No category is neutral.
CATEGORIES = {
    "happiness": ("Amusement", "Contentment", "Elation", "Pleasure/Ecstasy"),
    "surprise": ("Astonishment/Surprise",),
    "sadness": ("Disappointment", "Sadness"),
    "anger": ("Anger", "Impatience and Irritability"),
    "disgust": ("Disgust",),
    "fear": ("Fear",),
    "contempt": ("Contempt",),
}
EMOTION_OF_CATEGORY = {name: emotion for emotion, names in CATEGORIES.items() for name in names}
LICENCE = "EmoNet-Face: LAION e.V., CC BY 4.0; generated pictures"
SOURCE = (
    f"EmoNet-Face Binary is laion/emonet-face-binary on Hugging Face, its {LIST} is in "
    "https://github.com/LAION-AI/emonet-face; docs/reference/datasets.md says how to write its pictures"
)


def load_emonet_face(folder: Path, *, skip_bad: bool = False) -> Dataset:
    """`binary.csv` with `images/<path>.jpg` or another ending: eight emotions, one label each, no test split.

    A category counts when more than half of the answers about it are True. Pictures whose categories mean
    none or several of `EMOTIONS` are skipped and counted.
    Raises `DatasetError` when files are missing, or bad without `skip_bad`.
    """
    faults = Faults(folder, skip_bad=skip_bad)
    if not (folder / LIST).is_file() or not (folder / IMAGES).is_dir():
        raise not_found("EmoNet-Face", folder, (LIST, f"{IMAGES}/"), SOURCE)
    entries = _entries(folder, faults)
    return make_dataset("emonet_face", folder, entries, faults, emotions=EMOTIONS, licence=LICENCE)


def _entries(folder: Path, faults: Faults) -> Iterator[ImageEntry]:
    answers: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for place, row in read_rows(folder / LIST, COLUMNS):
        if row["value"] not in ("True", "False"):
            faults.add("values that are not True or False", place)
        else:
            answers[row["path"]][row["emotion"]] += 1 if row["value"] == "True" else -1
    files = {
        file.stem: file for file in (folder / IMAGES).iterdir() if file.suffix.lower() in PICTURE_SUFFIXES
    }
    for name, balance in answers.items():
        categories = [category for category, surplus in balance.items() if surplus > 0]
        emotions = {EMOTION_OF_CATEGORY.get(category) for category in categories}
        if len(emotions) > 1:
            faults.skip("training images with categories of several emotions")
        elif emotion := next(iter(emotions), None):
            file = files.get(name, folder / IMAGES / f"{name}.jpg")
            yield ImageEntry("training", file, EMOTIONS.index(emotion))
        else:
            what = f"labelled {categories[0]}" if categories else "without a confirmed category"
            faults.skip(f"training images {what}")
