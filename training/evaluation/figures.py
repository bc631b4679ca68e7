"""The content of a report on one test split."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from service.core.manifest import Metric
from training.evaluation.metrics import Bin, ClassFigures, ExpertFigures
from training.evaluation.robustness import CorruptionResult
from training.evaluation.subgroups import Subgroup


@dataclass(frozen=True)
class Report:
    """The content of `report.json`. Figures are of the main head unless their name says otherwise."""

    network: str
    dataset: str
    split: str
    samples: int
    temperature: float
    threshold: float
    figures: dict[str, Metric]
    figures_with_flip: dict[str, Metric]
    figures_without_copies: dict[str, Metric]
    original_labels_from_votes: Metric | None
    ece_uncalibrated: Metric
    by_class: list[ClassFigures]
    confusion: list[list[int]]
    by_class_label_head: list[ClassFigures]
    reliability: list[Bin]
    accuracy_at_coverage: dict[str, float]
    experts: list[list[ExpertFigures]]
    subgroups: list[Subgroup]
    robustness: list[CorruptionResult]
