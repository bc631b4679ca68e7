"""A network's report on one test split: JSON, Markdown and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from service.core.manifest import Metric
from training.calibrate import choose_threshold, fit_temperature
from training.checkpoint import Trained, load_trained
from training.datasets import DatasetKind, load
from training.datasets.faces import Dataset
from training.datasets.splits import drop_near_duplicates
from training.device import DeviceName, choose_device
from training.evaluation import metrics, plots, robustness
from training.evaluation.figures import Report
from training.evaluation.predict import Predictions, predict
from training.evaluation.subgroups import subgroups
from training.evaluation.votes import labels_from_votes
from training.models.folding import folded
from training.rows import refuse_other_emotions, training_rows

SELECTIVE_ACCURACY = 0.9


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
    """Measure a checkpoint on a test split, and return the paths of the files written into `out`.

    Temperature and threshold are chosen on the run's validation rows. kind: of the data set, by default the
    run's. split: name of a test split, by default the first. gallery: also draw failures; they show faces of
    the data set, which few licences allow to share.
    Raises `ValueError` when the split is missing, or when the data set has emotions that the network does not
    answer.
    """
    trained = load_trained(run)
    config = trained.config
    dataset = load(
        cast(DatasetKind, kind or config.dataset), data, skip_bad=skip_bad, ferplus_votes=config.ferplus_votes
    )
    refuse_other_emotions(trained.served, dataset)
    names = list(dataset.tests)
    split = split or next(iter(names), None)
    if split not in dataset.tests:
        raise ValueError(f"no split {split!r}; {dataset.name} has {', '.join(names) or 'no test split'}")
    _, held_out = training_rows(dataset, trained.config)
    # A folded network gives the same answers in half of the time.
    whole, trained = trained, replace(trained, network=folded(trained.network).to(choose_device(device)))
    validated = predict(trained.network, held_out)
    temperature = fit_temperature(validated.logits, held_out.majority)
    calibrated = predict(trained.network, held_out, temperature=temperature)
    threshold = choose_threshold(calibrated.probabilities, held_out.majority, SELECTIVE_ACCURACY)

    rows = dataset.tests[split]
    predicted = predict(trained.network, rows, temperature=temperature)
    report = make_report(trained, dataset, split, predicted, temperature, threshold, robust=robust)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_bytes(TypeAdapter(Report).dump_json(report, indent=1))
    pictures = plots.draw(report, out)
    if gallery:
        pictures.append(plots.draw_failures(predicted, rows, whole.network, out / "failures.png"))
    (out / "report.md").write_text(markdown(report, pictures))
    return [out / "report.json", out / "report.md", *pictures]


def make_report(
    trained: Trained,
    dataset: Dataset,
    split: str,
    predicted: Predictions,
    temperature: float,
    threshold: float,
    *,
    robust: bool,
) -> Report:
    """predicted: the network's answers for the split's rows at `temperature`."""
    network, rows = trained.network, dataset.tests[split]
    answers, labels = predicted.probabilities, rows.majority
    auxiliary = len(trained.auxiliary) if dataset.auxiliary else 0
    alone = drop_near_duplicates(rows, dataset.training)
    flipped = predict(network, rows, temperature=temperature, flip=True)
    kept = predict(network, alone, temperature=temperature)
    uncalibrated = predict(network, rows).probabilities
    return Report(
        network=trained.config.network.name,
        dataset=dataset.name,
        split=split,
        samples=len(rows),
        temperature=temperature,
        threshold=threshold,
        figures=metrics.figures(predicted, rows, auxiliary, threshold),
        figures_with_flip=metrics.figures(flipped, rows, auxiliary, threshold),
        figures_without_copies=metrics.figures(kept, alone, auxiliary, threshold),
        original_labels_from_votes=labels_from_votes(
            drop_near_duplicates(dataset.training, rows), rows, auxiliary
        )
        if auxiliary
        else None,
        ece_uncalibrated=metrics.calibration_error(uncalibrated, labels),
        by_class=metrics.by_class(answers, labels),
        confusion=metrics.confusion_matrix(answers, labels).tolist(),
        by_class_auxiliary=metrics.by_class(predicted.auxiliary, rows.labels) if auxiliary else [],
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
        "were chosen on validation rows. Intervals are 95 % by bootstrap.",
        "",
        *_table(
            ("figure", "as served", "with flip averaging", "without copies in the training split"),
            [(name, *(shown(column[name]) for column in three)) for name in report.figures],
        ),
        f"Expected calibration error before the temperature: {shown(report.ece_uncalibrated)}",
        "",
        *_votes(report.original_labels_from_votes),
        "## By emotion",
        "",
        *_table(
            ("emotion", "precision", "recall", "F1", "n"),
            [
                (c.emotion, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", c.samples)
                for c in report.by_class
            ],
        ),
    ]
    if report.by_class_auxiliary:
        lines += ["The auxiliary head, on the data set's own labels:", ""]
        lines += _table(
            ("emotion", "precision", "recall", "F1", "n"),
            [
                (c.emotion, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", c.samples)
                for c in report.by_class_auxiliary
            ],
        )
    lines += ["## By properties of the images", ""]
    lines += _table(("group", "accuracy"), [(g.name, shown(g.accuracy)) for g in report.subgroups])
    lines += ["Age, sex, skin tone and culture are not measured: the data set has no labels for them.", ""]
    for mixture, experts in zip(("large kernels", "fused"), report.experts, strict=True):
        if experts:
            lines += [f"## Experts: {mixture}", ""]
            header = (
                "emotion",
                *(f"expert {n + 1}" for n in range(len(experts[0].load))),
                "gate entropy",
                "n",
            )
            lines += _table(
                header,
                [
                    (e.emotion, *(f"{share:.2f}" for share in e.load), f"{e.entropy:.2f}", e.samples)
                    for e in experts
                ],
            )
    if report.robustness:
        lines += ["## Robustness", ""]
        lines += _table(
            ("harm", "strength", "accuracy", "certain", "accuracy of the certain"),
            [
                (
                    e.harm,
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


def _votes(predicted: Metric | None) -> list[str]:
    if predicted is None:
        return []
    return [
        f"The data set's labels, predicted from votes without the image: {shown(predicted)}",
        "",
    ]


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
        *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows),
        "",
    ]


def shown(metric: Metric) -> str:
    """A figure as text: value, interval and sample count."""
    interval = "" if metric.interval is None else f" [{metric.interval[0]:.3f}, {metric.interval[1]:.3f}]"
    return f"{metric.value:.3f}{interval} n={metric.samples}"
