"""A network's report on one test split: JSON, Markdown and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from pydantic import TypeAdapter

from training.calibrate import Calibrated, calibrate, rescaled
from training.checkpoint import Trained, load_trained
from training.datasets import DatasetKind, load
from training.datasets.faces import Dataset, LabelledFaces
from training.datasets.splits import drop_near_duplicates
from training.device import DeviceName, choose_device
from training.evaluation import metrics, plots, robustness
from training.evaluation.figures import Report
from training.evaluation.predict import predict
from training.evaluation.rows import HELD_OUT, rows_of, split_of
from training.evaluation.subgroups import subgroups
from training.evaluation.tables import shown, table
from training.evaluation.votes import labels_from_votes
from training.models.folding import folded
from training.rows import refuse_other_emotions


def evaluate_run(
    run: Path,
    data: Path,
    out: Path,
    *,
    kind: str | None = None,
    split: str | None = None,
    robust: bool = True,
    gallery: bool = False,
    device: DeviceName = "auto",
    skip_bad: bool = False,
) -> list[Path]:
    """Measure a checkpoint on one split, and return the paths of the files written into `out`.

    Temperature and threshold are chosen on the run's validation rows. kind: of the data set, by default the
    run's. split: as in `split_of`. gallery: also draw failures; they show faces of the data set, which few
    licences allow to share.
    Raises `ValueError` when the split is missing, or when the data set has emotions that the network does not
    answer.
    """
    trained = load_trained(run)
    config = trained.config
    dataset = load(
        cast(DatasetKind, kind or config.dataset), data, skip_bad=skip_bad, ferplus_votes=config.ferplus_votes
    )
    refuse_other_emotions(trained.emotions, dataset)
    split = split_of(dataset, split)
    held_out = rows_of(dataset, HELD_OUT, config)
    # A folded network gives the same answers in half of the time.
    whole, trained = trained, replace(trained, network=folded(trained.network).to(choose_device(device)))
    rows, calibrated = held_out, calibrate(predict(trained.network, held_out), held_out.majority)
    if split != HELD_OUT:
        rows = dataset.tests[split]
        predicted = predict(trained.network, rows, temperature=calibrated.temperature)
        calibrated = calibrated._replace(predicted=predicted)
    report = make_report(trained, dataset, split, rows, calibrated, robust=robust)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_bytes(TypeAdapter(Report).dump_json(report, indent=1))
    pictures = plots.draw(report, out)
    if gallery:
        pictures.append(plots.draw_failures(calibrated.predicted, rows, whole.network, out / "failures.png"))
    (out / "report.md").write_text(markdown(report, pictures))
    return [out / "report.json", out / "report.md", *pictures]


def make_report(
    trained: Trained,
    dataset: Dataset,
    split: str,
    rows: LabelledFaces,
    calibrated: Calibrated,
    *,
    robust: bool,
) -> Report:
    """rows: those of the split; calibrated: with the network's answers for them."""
    network, (temperature, threshold, predicted) = trained.network, calibrated
    answers, labels = predicted.probabilities, rows.majority
    label_emotions = len(trained.label_emotions) if dataset.label_emotions else 0
    flipped = predict(network, rows, temperature=temperature, flip=True)
    # The run trained on no copies of its validation rows.
    alone, kept = rows, predicted
    if split != HELD_OUT:
        alone = drop_near_duplicates(rows, dataset.training)
        kept = predict(network, alone, temperature=temperature)
    uncalibrated = rescaled(predicted, 1.0).probabilities
    return Report(
        network=trained.config.network.name,
        dataset=dataset.name,
        split=split,
        samples=len(rows),
        temperature=temperature,
        threshold=threshold,
        figures=metrics.figures(predicted, rows, label_emotions, threshold),
        figures_with_flip=metrics.figures(flipped, rows, label_emotions, threshold),
        figures_without_copies=metrics.figures(kept, alone, label_emotions, threshold),
        original_labels_from_votes=labels_from_votes(
            drop_near_duplicates(dataset.training, rows), rows, label_emotions
        )
        if label_emotions
        else None,
        ece_uncalibrated=metrics.calibration_error(uncalibrated, labels),
        by_class=metrics.by_class(answers, labels),
        confusion=metrics.confusion_matrix(answers, labels).tolist(),
        by_class_label_head=metrics.by_class(predicted.label_probabilities, rows.labels)
        if label_emotions
        else [],
        reliability=metrics.reliability(answers, labels),
        accuracy_at_coverage={
            f"{share:.2f}": round(metrics.accuracy_at(answers, labels, share), 4)
            for share in metrics.COVERAGES
        },
        experts=[metrics.experts_by_class(predicted, labels, mixture) for mixture in (0, 1)],
        subgroups=subgroups(answers, rows),
        robustness=robustness.measure(network, rows, temperature=temperature, threshold=threshold)
        if robust
        else [],
    )


def markdown(report: Report, pictures: list[Path]) -> str:
    """The report as Markdown, which links pictures by file name."""
    three = (report.figures, report.figures_with_flip, report.figures_without_copies)
    lines = [
        f"# {report.network} on {report.dataset}, {report.split}",
        "",
        f"{report.samples} images. Temperature {report.temperature} and threshold {report.threshold} "
        f"were chosen on {'the same' if report.split == HELD_OUT else 'validation'} rows. "
        "Intervals are 95 % by bootstrap.",
        "",
        *table(
            ("figure", "as served", "with flip averaging", "without copies in the training split"),
            [(name, *(shown(column[name]) for column in three)) for name in report.figures],
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
    lines += table(("group", "accuracy"), [(g.name, shown(g.accuracy)) for g in report.subgroups])
    lines += ["Age, sex, skin tone and culture are not measured: the data set has no labels for them.", ""]
    for mixture, experts in zip(("large kernels", "fused"), report.experts, strict=True):
        if experts:
            lines += [f"## Experts: {mixture}", ""]
            columns = (f"expert {n + 1}" for n in range(len(experts[0].load)))
            lines += table(
                ("emotion", *columns, "gate entropy", "n"),
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
