"""The tables of docs/ that show figures of the served manifest.

A table follows a comment with its name, as in `<!-- from the manifest: recall -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from service.core.manifest import ClassifierManifest, Metric, QualityLimit, read_manifest
from service.settings import Settings
from tests.docs.blocks import ROOT
from tests.docs.reference.markdown import table
from training.evaluation.tables import shown

_FOLDER = ROOT / "docs" / "explanation"
BANDS_INTRODUCTION = """\
# Bands of quality

This page lists how often the served classifier is right, by one measure of quality at a time.
The limits of quality were chosen from it. It is generated from the manifest.
[Quality and verdict](../explanation/quality.md) explains the measures and the limits.

| column | meaning |
| --- | --- |
| from, below | The values of the measure in this band. Of angles, the amount counts. |
| faces | Faces in the band. |
| accuracy | Share of right answers. |
| confidence | Mean confidence. |
| certain | Share of answers that confidence alone calls `certain`. |
| accuracy of the certain | Share of these that are right. |

"""
NAMES = {
    "accuracy": "accuracy",
    "plurality_accuracy": "plurality accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "macro_f1": "macro F1",
    "ece": "calibration error, shares of votes",
    "ece_by_chance": "of these by chance",
    "ece_majority": "calibration error, majority",
    "coverage": "coverage of the verdict",
    "selective_accuracy": "plurality accuracy of the `certain`",
    "selective_accuracy_at_80": "plurality accuracy of the surest 80 %",
    "original_labels_main_head": "FER-2013's labels, main head",
}
SPLITS = {
    "PublicTest": "PublicTest",
    "PublicTest_balanced": "PublicTest, `balanced`",
    "PublicTest_without_copies_balanced": "without copies of Training, `balanced`",
    "validation_balanced": "validation, `balanced`",
}
PRIORS = {
    "PublicTest_recall": "with the prior of the training",
    "PublicTest_balanced_recall": "with `balanced`",
}
CROPS = {
    "PublicTest_realigned_balanced": "cropped as the gateway does it",
    "PublicTest_realigned_whole_balanced": "as they are",
}
CORRUPTED = {
    "PublicTest_quality": "clean faces that the detector finds",
    "PublicTest_quality_corrupted": "corrupted faces, all kinds and strengths",
}
SHIFT = "PublicTest_shift: "


def figures(manifest: ClassifierManifest) -> str:
    columns = [manifest.metrics[split] for split in SPLITS]
    return table(
        ("", *SPLITS.values()),
        [(name, *(shown(column[figure]) for column in columns)) for figure, name in NAMES.items()],
    )


def recall(manifest: ClassifierManifest) -> str:
    columns = [manifest.metrics[split] for split in PRIORS]
    return table(
        ("emotion", *PRIORS.values()),
        [(emotion, *(shown(column[emotion]) for column in columns)) for emotion in manifest.labels],
    )


def crops(manifest: ClassifierManifest) -> str:
    return table(
        ("images", "accuracy"),
        [(name, shown(manifest.metrics[split]["accuracy"])) for split, name in CROPS.items()],
    )


def subgroups(manifest: ClassifierManifest) -> str:
    assert manifest.subgroups is not None
    return table(
        ("group", "accuracy"),
        [(name, shown(metric)) for name, metric in manifest.subgroups.accuracy.items()],
    )


def with_limits(manifest: ClassifierManifest) -> str:
    columns = [manifest.metrics[split] for split in CORRUPTED]

    def row(name: str, text: Callable[[dict[str, Metric]], str]) -> tuple[str, ...]:
        return (name, *(text(column) for column in columns))

    def share(figure: str) -> Callable[[dict[str, Metric]], str]:
        return lambda column: percent(column[figure].value)

    return table(
        ("", *CORRUPTED.values()),
        [
            row("faces", lambda column: f"{column['coverage'].samples:,}"),
            row("`certain` by confidence alone", share("coverage_without_limits")),
            row("of those right", share("selective_accuracy_without_limits")),
            row("`certain` with the limits", share("coverage")),
            row("of those right", share("selective_accuracy")),
            row("held back by a limit", lambda column: f"{column['held_back_accuracy'].samples:,}"),
            row("of those right", share("held_back_accuracy")),
        ],
    )


def shifts(manifest: ClassifierManifest) -> str:
    measured = {
        name.removeprefix(SHIFT): found for name, found in manifest.metrics.items() if name.startswith(SHIFT)
    }
    return table(
        ("other camera, light or crop", "accuracy", "`certain`", "accuracy of the `certain`"),
        [
            (
                name,
                percent(found["accuracy"].value),
                percent(found["coverage"].value, digits=0),
                shown(found["selective_accuracy"]) if found["selective_accuracy"].samples else "",
            )
            for name, found in measured.items()
        ],
    )


TABLES: dict[Path, dict[str, Callable[[ClassifierManifest], str]]] = {
    _FOLDER / "model-card.md": {
        "figures": figures,
        "crops": crops,
        "recall": recall,
        "subgroups": subgroups,
    },
    _FOLDER / "quality.md": {"limits": with_limits, "shifts": shifts},
}


def with_figures(page: Path) -> str:
    """The page with the tables of the manifest. Raises `ValueError` when the page lacks one."""
    text, manifest = page.read_text(encoding="utf-8"), served()
    for name, of in TABLES[page].items():
        comment = f"<!-- from the manifest: {name} -->\n"
        before, found, after = text.partition(comment)
        if not found:
            raise ValueError(f"{page.name} lacks {comment.strip()}")
        text = before + comment + of(manifest) + "\n" + re.sub(r"\A(?:\|.*\n)*", "", after)
    return text


def bands_page() -> str:
    quality = served().verdict.quality
    assert quality is not None
    parts = [BANDS_INTRODUCTION + quality.rule]
    for limit in quality.limits:
        parts += [
            f"## {limit.code}: {limit.measure}, {edge(limit)}",
            table(
                ("from", "below", "faces", "accuracy", "confidence", "certain", "accuracy of the certain"),
                [
                    (
                        *(f"{b.low:.3g}", f"{b.high:.3g}", str(b.samples)),
                        *map(percent, (b.accuracy, b.confidence, b.certain, b.certain_accuracy)),
                    )
                    for b in limit.bands
                ],
            ),
        ]
    return "\n\n".join(parts) + "\n"


def edge(limit: QualityLimit) -> str:
    if limit.min is not None:
        return f"at least {limit.min:g}"
    return "no limit" if limit.max is None else f"at most {limit.max:g}"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def served() -> ClassifierManifest:
    manifest = read_manifest(Settings().model_repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)
    return manifest
