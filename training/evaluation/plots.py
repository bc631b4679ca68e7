"""The pictures of a report, in colours that colour-blind readers can distinguish (Okabe and Ito)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from service.core.manifest import EMOTIONS, QualityLimits
from training.datasets.faces import LabelledFaces
from training.evaluation.predict import Predictions
from training.evaluation.report import Report
from training.models import Network

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"
DPI = 110
FAILURES = 32


def draw(report: Report, out: Path) -> list[Path]:
    """Write every picture that the report has figures for, and return their paths."""
    drawn = {
        "confusion.png": _confusion(report),
        "reliability.png": _reliability(report),
        "coverage.png": _coverage(report),
        "recall.png": _recall(report),
    }
    if report.robustness:
        drawn["robustness.png"] = _robustness(report)
    for name, figure in drawn.items():
        figure.savefig(out / name, dpi=DPI)
    return [out / name for name in drawn]


def _confusion(report: Report) -> Figure:
    counts = np.array(report.confusion)
    labels = counts.sum(axis=1)
    shares = counts / np.maximum(labels, 1)[:, None]
    names = EMOTIONS[: len(counts)]
    figure = Figure(figsize=(7.5, 6.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text, colour = f"{share:.0%}\n{counts[row, column]}", "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), [f"{n} ({c})" for n, c in zip(names, labels, strict=True)])
    axes.set(xlabel="answer", ylabel="label", title=f"{report.dataset}, {report.split}: share of each label")
    return figure


def _reliability(report: Report) -> Figure:
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    confidence = [b.confidence for b in report.reliability]
    top.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="confidence is the share")
    top.plot(confidence, [b.share for b in report.reliability], color=BLUE, marker="o", label="measured")
    top.axvline(report.threshold, color=ORANGE, linewidth=1, label=f"certain from {report.threshold:.2f}")
    top.set(
        ylabel="share of votes", ylim=(0, 1.02), title=f"reliability, ECE {report.figures['ece'].value:.3f}"
    )
    top.legend(loc="upper left", fontsize=8)
    bottom.bar(confidence, [b.samples for b in report.reliability], width=0.05, color=BLUE)
    bottom.set(xlabel="confidence", ylabel="faces", xlim=(0, 1.02))
    _grid(top, bottom)
    return figure


def _coverage(report: Report) -> Figure:
    figure = Figure(figsize=(5.6, 4), layout="constrained")
    axes = figure.subplots()
    shares = [float(share) for share in report.accuracy_at_coverage]
    axes.plot(shares, list(report.accuracy_at_coverage.values()), color=BLUE, marker="o", markersize=3)
    covered, reached = report.figures["coverage"].value, report.figures["selective_accuracy"].value
    axes.plot([covered], [reached], color=ORANGE, marker="D", linestyle="", label="the verdict's threshold")
    axes.set(
        xlabel="share of faces answered, surest first", ylabel="accuracy", title="accuracy against coverage"
    )
    axes.legend(fontsize=8)
    _grid(axes)
    return figure


def _recall(report: Report) -> Figure:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    measured = report.subgroups.recall
    recall = np.array([metric.value for metric in measured.values()])
    low, high = np.transpose([metric.interval for metric in measured.values()])
    names = [f"{emotion}\nn={metric.samples}" for emotion, metric in measured.items()]
    axes.bar(names, recall, color=BLUE, yerr=[recall - low, high - recall], ecolor="black", capsize=3)
    axes.set(ylabel="share found (recall)", ylim=(0, 1.02), title="by emotion, with 95 % intervals")
    axes.tick_params("x", labelsize=8)
    _grid(axes)
    return figure


def _robustness(report: Report) -> Figure:
    kinds = list(dict.fromkeys(e.corruption for e in report.robustness))
    figure = Figure(figsize=(10, 5), layout="constrained")
    for axes, kind in zip(figure.subplots(2, 4, sharey=True).flat, kinds, strict=True):
        rows = [e for e in report.robustness if e.corruption == kind]
        axes.axhline(report.figures["accuracy"].value, color=GREY, linestyle="--", linewidth=1, label="clean")
        for label, colour, marker, values in (
            ("accuracy", BLUE, "o", [e.accuracy.value for e in rows]),
            ("share certain", ORANGE, "s", [e.certain for e in rows]),
            ("accuracy of the certain", GREEN, "^", [e.certain_accuracy for e in rows]),
        ):
            axes.plot(range(5), values, color=colour, marker=marker, label=label)
        axes.set_xticks(range(5), [f"{e.strength:g}" for e in rows], fontsize=8)
        axes.set_title(kind, fontsize=10)
        axes.set_xlabel(rows[0].unit, fontsize=8)
        axes.set_ylim(0, 1.02)
        _grid(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def draw_failures(predicted: Predictions, rows: LabelledFaces, network: Network, path: Path) -> Path:
    """Draw the most confident wrong answers into `path`, and return it."""
    confidence, answers = predicted.probabilities.max(axis=1), predicted.probabilities.argmax(axis=1)
    wrong = np.flatnonzero((rows.majority >= 0) & (answers != rows.majority))
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:FAILURES]
    figure = Figure(figsize=(12, 7.6), layout="constrained")
    grid = figure.subplots(4, 8)
    for axes in grid.flat:
        axes.axis("off")
    if len(worst):
        pixels = rows.pictures.read(worst, size=network.size, channels=network.channels)
        for axes, row, image in zip(grid.flat, worst, pixels, strict=False):
            axes.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=255)
            axes.set_title(
                f"{EMOTIONS[rows.majority[row]]}, taken for\n"
                f"{EMOTIONS[answers[row]]} ({confidence[row]:.0%})",
                fontsize=8,
            )
    figure.savefig(path, dpi=DPI)
    return path


def _grid(*several: Axes) -> None:
    for axes in several:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)


def draw_quality(limits: QualityLimits, path: Path) -> Path:
    """Draw accuracy, confidence and accuracy of certain answers by band, one panel per limit."""
    figure = Figure(figsize=(9, 7.8), layout="constrained")
    for axes, limit in zip(figure.subplots(3, 3, sharey=True).flat, limits.limits, strict=True):
        middles = [(band.low + band.high) / 2 for band in limit.bands]
        for label, colour, marker, values in (
            ("accuracy", BLUE, "o", [band.accuracy for band in limit.bands]),
            ("confidence", GREY, "x", [band.confidence for band in limit.bands]),
            ("accuracy of the certain", GREEN, "^", [band.certain_accuracy for band in limit.bands]),
        ):
            axes.plot(middles, values, color=colour, marker=marker, markersize=4, label=label)
        edge = limit.min if limit.max is None else limit.max
        if edge is not None:
            axes.axvline(edge, color=ORANGE, linewidth=1, label="limit")
        if limit.measure in ("sharpness", "contrast") or limit.code == "too_dark":
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(limit.code, fontsize=10)
        axes.set_xlabel(limit.measure, fontsize=8)
        axes.set_ylim(0, 1.02)
        _grid(axes)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=DPI)
    return path
