"""The content of a report on one split, and its page."""

from __future__ import annotations

from pathlib import Path

from pydantic.dataclasses import dataclass

from service.core.manifest import Metric, Subgroups
from service.core.priors import BALANCED
from training.calibrate import Calibrated, with_prior
from training.datasets.faces import Dataset, LabelledFaces
from training.datasets.splits import drop_near_duplicates
from training.evaluation import metrics
from training.evaluation.corruptions import CorruptionResult, measure_robustness
from training.evaluation.predict import predict
from training.evaluation.rows import HELD_OUT
from training.evaluation.subgroups import subgroups
from training.evaluation.tables import shown, table
from training.models import Network


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
    figures_balanced: dict[str, Metric]
    figures_with_flip: dict[str, Metric]
    figures_without_copies: dict[str, Metric]
    original_labels_from_votes: Metric | None
    ece_uncalibrated: Metric
    by_class: list[metrics.ClassFigures]
    confusion: list[list[int]]
    by_class_label_head: list[metrics.ClassFigures]
    reliability: list[metrics.Bin]
    accuracy_at_coverage: dict[str, float]
    experts: list[list[metrics.ExpertFigures]]
    subgroups: Subgroups
    robustness: list[CorruptionResult]


def make_report(
    network: Network,
    name: str,
    dataset: Dataset,
    split: str,
    rows: LabelledFaces,
    calibrated: Calibrated,
    *,
    robust: bool,
) -> Report:
    """rows: those of the split; calibrated: with the network's answers for them."""
    temperature, prior, threshold, predicted = calibrated
    answers, labels = predicted.probabilities, rows.majority
    label_emotions = len(dataset.label_emotions)
    balanced = predicted._replace(probabilities=with_prior(answers, prior, BALANCED))
    flipped = predict(network, rows, temperature=temperature, flip=True)
    # The run trained on no copies of its validation rows.
    alone, kept = rows, predicted
    if split != HELD_OUT:
        alone = drop_near_duplicates(rows, dataset.training)
        kept = predict(network, alone, temperature=temperature)
    votes, label_head = None, []
    if label_emotions:
        known = drop_near_duplicates(dataset.training, rows)
        votes = metrics.labels_from_votes(known, rows, label_emotions)
        if predicted.label_probabilities.shape[1]:
            label_head = metrics.by_class(predicted.label_probabilities, rows.labels)
    return Report(
        network=name,
        dataset=dataset.name,
        split=split,
        samples=len(rows),
        temperature=temperature,
        threshold=threshold,
        figures=metrics.figures(predicted, rows, label_emotions, threshold),
        figures_balanced=metrics.figures(balanced, rows, label_emotions, threshold),
        figures_with_flip=metrics.figures(flipped, rows, label_emotions, threshold),
        figures_without_copies=metrics.figures(kept, alone, label_emotions, threshold),
        original_labels_from_votes=votes,
        ece_uncalibrated=metrics.calibration_error(predicted.at(1.0).probabilities, rows.distributions),
        by_class=metrics.by_class(answers, labels),
        confusion=metrics.confusion_matrix(answers, labels).tolist(),
        by_class_label_head=label_head,
        reliability=metrics.reliability(answers, rows.distributions),
        accuracy_at_coverage={
            f"{share:.2f}": round(metrics.accuracy_at(*metrics.plurality(answers, rows), share), 4)
            for share in metrics.COVERAGES
        },
        experts=[metrics.experts_by_class(predicted, labels, mixture) for mixture in (0, 1)],
        subgroups=subgroups(split, answers, rows),
        robustness=measure_robustness(network, rows, temperature, threshold) if robust else [],
    )


def markdown(report: Report, pictures: list[Path]) -> str:
    """The report as Markdown, which links pictures by file name."""
    columns = {
        "training's prior": report.figures,
        "prior balanced": report.figures_balanced,
        "with flip averaging": report.figures_with_flip,
        "without copies in the training split": report.figures_without_copies,
    }
    lines = [
        f"# {report.network} on {report.dataset}, {report.split}",
        "",
        f"{report.samples} images. Temperature {report.temperature} and threshold {report.threshold} "
        f"were chosen on {'the same' if report.split == HELD_OUT else 'validation'} rows. "
        "Intervals are 95 % by bootstrap.",
        "",
        *table(
            ("figure", *columns),
            [(name, *(shown(column[name]) for column in columns.values())) for name in report.figures],
        ),
        f"Expected calibration error before the temperature: {shown(report.ece_uncalibrated)}",
        "",
        *(
            [f"The data set's labels, predicted from votes without the image: {shown(predicted)}", ""]
            if (predicted := report.original_labels_from_votes)
            else []
        ),
        "## By emotion",
        "",
        *_by_class(report.by_class),
    ]
    if report.by_class_label_head:
        lines += [
            "The label head, on the data set's own labels:",
            "",
            *_by_class(report.by_class_label_head),
        ]
    lines += ["## By properties of the images", ""]
    lines += table(
        ("group", "accuracy"), [(name, shown(metric)) for name, metric in report.subgroups.accuracy.items()]
    )
    lines += ["Age, sex, skin tone and culture are not measured: the data set has no labels for them.", ""]
    for mixture, experts in zip(("large kernels", "fused"), report.experts, strict=True):
        if experts:
            lines += [f"## Experts: {mixture}", ""]
            names = (f"expert {n + 1}" for n in range(len(experts[0].load)))
            lines += table(
                ("emotion", *names, "gate entropy", "n"),
                [
                    (e.emotion, *(f"{share:.2f}" for share in e.load), f"{e.entropy:.2f}", e.samples)
                    for e in experts
                ],
            )
    if report.robustness:
        lines += ["## Robustness", ""]
        lines += table(
            ("corruption", "strength", "accuracy", "certain", "accuracy of the certain"),
            [
                (
                    e.corruption,
                    f"{e.strength:g} ({e.unit})",
                    shown(e.accuracy),
                    f"{e.certain:.1%}",
                    f"{e.certain_accuracy:.1%}",
                )
                for e in report.robustness
            ],
        )
    lines += [f"![{path.stem}]({path.name})" for path in pictures]
    return "\n".join(lines) + "\n"


def _by_class(figures: list[metrics.ClassFigures]) -> list[str]:
    return table(
        ("emotion", "precision", "recall", "F1", "n"),
        [(c.emotion, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", c.samples) for c in figures],
    )
