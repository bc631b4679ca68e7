"""Names of emotions as data sets write them, and names that a user explains in `emotions.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from service.core.manifest import EMOTIONS
from training.datasets.faces import DatasetError

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
EMOTION_OF = {name: EMOTIONS.index(emotion) for emotion, names in SYNONYMS.items() for name in names}
_NUMBER = re.compile(r"^\d+[ ._-]+|[ ._-]+\d+$")
MAP_FILE = "emotions.yaml"
SKIPPED = "skip"

LabelMap = Mapping[str, int | None]
"""Label in lower case -> index into `EMOTIONS`, None for a label whose pictures are skipped."""


def read_label_map(folder: Path) -> LabelMap:
    """The labels that `emotions.yaml` explains; none without this file.

    Raises `DatasetError` for a file that is no map of labels to emotions or `skip`.
    """
    path = folder / MAP_FILE
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is no map of labels to emotions, such as '0: anger'")
    own: dict[str, int | None] = {}
    for label, emotion in content.items():
        name = str(emotion).lower()
        if name != SKIPPED and name not in EMOTION_OF:
            raise DatasetError(
                f"{path}: {label}: {emotion} is no known emotion; known are {', '.join(EMOTIONS)}, {SKIPPED}"
            )
        own[str(label).lower()] = EMOTION_OF.get(name)
    return own


def emotion_of(label: str, own: LabelMap, what: str, known: Sequence[str] = EMOTIONS) -> int | None:
    """The index into `EMOTIONS` of a label; None if `own` skips it. A number beside a name is ignored.

    what: where the label was read, for the error. Raises `DatasetError` for a label that is not one of the
    `known` emotions, their synonyms or `own`.
    """
    name = label.strip().lower()
    if name in own:
        return own[name]
    if name.isdecimal():
        raise DatasetError(
            f"{what} is a number, which means another emotion in each data set; write {MAP_FILE} into the "
            f"folder of the data, with lines such as '{name}: anger' or '{name}: {SKIPPED}'. "
            "docs/reference/datasets.md has the numbers of FER-2013, RAF-DB and AffectNet"
        )
    emotion = EMOTION_OF.get(_NUMBER.sub("", name))
    if emotion is None or EMOTIONS[emotion] not in known:
        names = ", ".join("/".join(SYNONYMS[emotion]) for emotion in known)
        raise DatasetError(
            f"{what} is not a known emotion; known names are {names}. {MAP_FILE} in the folder "
            f"of the data can explain others, with lines such as '{name}: sadness' or '{name}: {SKIPPED}'"
        )
    return emotion
