"""Finds, levels, crops and stores the faces of a data set as the gateway crops them.

Training then reads small pictures instead of whole photos, and sees what the served model sees.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from service.core.errors import ImageTooLarge, InvalidImage, UnsupportedMediaType
from service.core.manifest import EMOTIONS, ONNX, Input, read_manifest
from service.pipeline.crops import Crops
from service.settings import Settings
from training.atomic import replacing
from training.datasets import load, summary
from training.datasets.card import contents
from training.datasets.faces import DECODING_THREADS, Dataset, DatasetError, LabelledFaces
from training.datasets.prepared import CARD, JOURNAL, TRAINING, read_journal, read_prepared
from training.datasets.splits import drop_near_duplicates
from training.framing import PhotoCropper
from training.models.boxes import overlaps
from training.progress import Progress

BLOCK = 64  # pictures between two writes of the journal
SAME_FACE = 0.3  # intersection over union of a listed box and a found box


@dataclass(frozen=True)
class Choice:
    """Which faces are kept. Sizes are of the shorter side of the face's box, in px of the photo.

    max_tilt: degrees between the eyes and the horizontal, before levelling. largest: of a photo with several
    faces, keep the largest. Without it such a photo is skipped, unless a list says which face is meant.
    """

    min_face_px: float = 32.0
    max_tilt: float = 45.0
    largest: bool = False


class Skipped(Exception):
    """Why a picture has no face to keep."""


def prepare(
    kind: str,
    data: Path,
    out: Path,
    repository: Path,
    *,
    size: int | None = None,
    choice: Choice = Choice(),
    source: str | None = None,
    licence: str | None = None,
) -> Path:
    """Write the faces of a data set into `out`, for the kind `prepared`, and return the path of its card.

    The same call resumes after an interruption. size: side of the crops in px, by default that of the served
    classifier. source and licence: for the card; by default the data set's.
    Raises `DatasetError` when `out` has other contents or was begun with other options, and `ModelFileError`.
    """
    classifier = read_manifest(repository, Settings().classifier)
    if classifier.input is None:
        raise DatasetError(f"{classifier.name} is no classifier, so it has no crop")
    spec = Input(size=size or classifier.input.size, crop=classifier.input.crop)
    dataset = load(kind, data, skip_bad=True)
    cropper = PhotoCropper(repository)
    splits = {TRAINING: dataset.training, **dataset.tests}
    options = {
        "dataset": dataset.name,
        "pictures": {split: len(rows) for split, rows in splits.items()},
        "crop": spec.model_dump(mode="json"),
        "detector": {"name": cropper.detector.name, "sha256": cropper.detector.sha256[ONNX]},
        "choice": vars(choice),
    }
    work = [(rows, row) for rows in splits.values() for row in range(len(rows))]
    sources = [_source(split, rows, row) for split, rows in splits.items() for row in range(len(rows))]
    done = _resumed(out, options, sources)
    blocks = range(done, len(work), BLOCK)

    def write(number: int) -> dict[str, Any]:
        return _write_face(out, number, sources[number], partial(_face, cropper, spec, choice, *work[number]))

    with ThreadPoolExecutor(DECODING_THREADS) as pool, (out / JOURNAL).open("a") as journal:
        for start in Progress(out, enabled=True).track(blocks, len(blocks), "crop"):
            for line in pool.map(write, range(start, min(start + BLOCK, len(work)))):
                journal.write(json.dumps(line) + "\n")
            journal.flush()
    return _write_card(out, options, dataset, source, licence)


def _source(split: str, rows: LabelledFaces, row: int) -> dict[str, Any]:
    """The picture and its labels, as the journal has them."""
    return {
        "source": str(rows.names[row]),
        "split": split,
        "label": int(rows.labels[row]),
        "majority": int(rows.majority[row]),
        "distribution": [round(float(share), 6) for share in rows.distributions[row]],
    }


def _resumed(out: Path, options: dict[str, Any], sources: list[dict[str, Any]]) -> int:
    """How many pictures are done. Begins the journal of a new folder."""
    journal = out / JOURNAL
    if not journal.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise DatasetError(f"{out} is not empty, and was not made by `expressnet prepare`")
        out.mkdir(parents=True, exist_ok=True)
        journal.write_text(json.dumps(options) + "\n")
        return 0
    earlier, lines = read_journal(journal)
    changed = [key for key in options if json.loads(json.dumps(options[key])) != earlier.get(key)]
    if not changed and any(line | source != line for line, source in zip(lines, sources, strict=False)):
        changed = ["the pictures or labels of the data set"]
    if changed:
        raise DatasetError(f"{out} was begun with other options ({', '.join(changed)}); use another folder")
    return len(lines)


def _write_face(
    out: Path, number: int, line: dict[str, Any], face: Callable[[], NDArray[np.uint8]]
) -> dict[str, Any]:
    """Write one face, and return its line of the journal."""
    try:
        pixels = face()
    except Skipped as why:
        return {**line, "image": None, "skipped": str(why)}
    emotion = "none" if line["majority"] < 0 else EMOTIONS[line["majority"]]
    path = out / line["split"] / emotion / f"{number:07}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return {**line, "image": path.relative_to(out).as_posix(), "sha256": digest}


def _face(
    cropper: PhotoCropper, spec: Input, choice: Choice, rows: LabelledFaces, row: int
) -> NDArray[np.uint8]:
    """uint8 [S,S,3] RGB. Raises `Skipped`."""
    try:
        photo, box = rows.pictures.original(row)
        crops, enlarged = cropper.crop(photo, spec), 1
        if not crops.faces_found and box is None:
            crops, enlarged = cropper.crop_close_up(photo, spec)
    except (OSError, InvalidImage, ImageTooLarge, UnsupportedMediaType) as error:
        raise Skipped("unreadable") from error
    face = _chosen(crops, choice, box)
    quality = crops.quality[face]
    if quality.size_px / enlarged < choice.min_face_px:
        raise Skipped("too small")
    if abs(quality.roll_degrees or 0.0) > choice.max_tilt:
        raise Skipped("tilted")
    return np.ascontiguousarray(crops.faces[face].transpose(1, 2, 0))


def _chosen(crops: Crops, choice: Choice, box: NDArray[np.int64] | None) -> int:
    """The index of the face to keep. Raises `Skipped`."""
    if not len(crops.boxes):
        raise Skipped("no face")
    if box is None:
        if len(crops.boxes) > 1 and not choice.largest:
            raise Skipped("several faces")
        return 0  # the largest
    overlap = overlaps(torch.from_numpy(crops.boxes), torch.from_numpy(box)[None])
    if overlap.max() < SAME_FACE:
        raise Skipped("no face in the listed box")
    return int(overlap.argmax())


def _write_card(
    out: Path, options: dict[str, Any], dataset: Dataset, source: str | None, licence: str | None
) -> Path:
    """Write `card.json`, which marks the folder as complete, and `card.md`."""
    _, lines = read_journal(out / JOURNAL)
    skipped = Counter((line["split"], line["skipped"]) for line in lines if not line["image"])
    if not any(line["image"] for line in lines if line["split"] == TRAINING):
        reasons = ", ".join(f"{count} {why}" for (_, why), count in skipped.items())
        raise DatasetError(f"no training picture of {dataset.name} has a face to keep: {reasons}")
    card = {
        **options,
        "main_emotions": dataset.emotions,
        "label_emotions": dataset.label_emotions,
        "licences": [licence] if licence else dataset.licences,
        "source": source,
        "skipped": {
            split: {why: count for (where, why), count in skipped.items() if where == split}
            for split in options["pictures"]
        },
        "problems": dataset.problems,
        "sha256": hashlib.sha256((out / JOURNAL).read_bytes()).hexdigest(),
    }
    prepared = read_prepared(out, card)
    splits = {TRAINING: prepared.training, **prepared.tests}
    card |= contents(splits)
    card["copies_of_test_faces"] = {
        split: len(prepared.training) - len(drop_near_duplicates(prepared.training, rows))
        for split, rows in prepared.tests.items()
    }
    (out / "card.md").write_text("\n".join(_markdown(card, summary(prepared))))
    with replacing(out / CARD) as written:
        written.write_text(json.dumps(card, indent=1))
    return out / "card.md"


def _markdown(card: dict[str, Any], table: str) -> Iterator[str]:
    crop = card["crop"]
    yield f"# Faces of {card['dataset']}\n"
    yield f"- Source: {card['source'] or 'not given'}"
    yield f"- Licence: {'; '.join(card['licences'])}"
    yield f"- Crops: {crop['size']} px; eyes and mouth at {json.dumps(crop['crop'])} of the side"
    yield f"- Detector: {card['detector']['name']} ({card['detector']['sha256']})"
    yield f"- Choice: {json.dumps(card['choice'])}"
    yield f"- SHA-256 of {JOURNAL}, which has the SHA-256 of the pixels of each face: {card['sha256']}"
    for split, count in card["copies_of_test_faces"].items():
        yield f"- Training faces that are copies or near copies of faces of {split}: {count}"
    yield f"\n```\n{table}\n```\n"
    yield "| split | pictures | faces | skipped |"
    yield "|---|---|---|---|"
    for split, count in card["pictures"].items():
        reasons = ", ".join(f"{number} {why}" for why, number in card["skipped"][split].items())
        yield f"| {split} | {count} | {card['faces'].get(split, 0)} | {reasons or 'none'} |"
    yield ""
    yield from (f"- {problem}" for problem in card["problems"])
    yield ""
