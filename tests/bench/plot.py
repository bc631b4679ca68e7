"""One picture of a run: images/s beside the peers', and latency over the rate at which requests arrive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from tests.bench.figures import Figure
from tests.bench.peers import CALLERS, MODES
from tests.bench.throughput import SHARES, open_name

OURS, THEIRS, TAIL = "#1f6fb2", "#b8b8b8", "#d1662b"


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Write a PNG. Raises `ValueError` if the run measured nothing that the picture shows."""
    by_name = {figure.name: figure for figure in figures}
    panels = [
        panel
        for panel, needed in (
            (_beside_peers, f"{MODES[0].ours}, {CALLERS} callers"),
            (_over_rate, open_name(SHARES[0], "p50")),
        )
        if needed in by_name
    ]
    if not panels:
        raise ValueError("a picture needs the parts `service` or `peers`")
    picture, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 3.6), squeeze=False)
    for panel, ax in zip(panels, axes[0], strict=True):
        panel(ax, by_name)
        ax.spines[["top", "right"]].set_visible(False)
    picture.tight_layout()
    picture.savefig(path, dpi=150)
    plt.close(picture)


def _beside_peers(ax: Axes, figures: dict[str, Figure]) -> None:
    names = [name for mode in MODES for name in (mode.ours, mode.theirs)]
    shown = [
        figures[f"{name}, {CALLERS} callers"] for name in names if f"{name}, {CALLERS} callers" in figures
    ]
    ours = {f"{mode.ours}, {CALLERS} callers" for mode in MODES}
    medians = [figure.median for figure in shown]
    bars = ax.barh(
        [figure.name.removesuffix(f", {CALLERS} callers") for figure in shown],
        medians,
        xerr=_whiskers(shown),
        color=[OURS if figure.name in ours else THEIRS for figure in shown],
        error_kw={"ecolor": "#444444", "capsize": 3},
    )
    ax.bar_label(bars, [f"{median:.3g}" for median in medians], padding=6)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel="images/s", title=f"640x480, one face, {CALLERS} callers")


def _over_rate(ax: Axes, figures: dict[str, Figure]) -> None:
    for what, colour, offset in (("p99", TAIL, 7), ("p50", OURS, -7)):
        shown = [figures[open_name(share, what)] for share in SHARES]
        rates = [100 * share for share in SHARES]
        ax.errorbar(
            rates, [figure.median for figure in shown], _whiskers(shown), color=colour, marker="o", capsize=3
        )
        ax.annotate(
            what,
            (rates[-1], shown[-1].median),
            (8, offset),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    ax.margins(x=0.12)
    ax.set(
        yscale="log",  # one bad round must not flatten all others
        xlabel="arrivals, % of what 8 callers saturate it with",
        ylabel="ms from the scheduled arrival",
        title="640x480, one face, constant arrivals",
    )
    ax.yaxis.set_major_formatter("{x:g}")
    # Else the labels between them are powers of ten with factors.
    ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))


def _whiskers(figures: Sequence[Figure]) -> tuple[list[float], list[float]]:
    """How far least and most are from the median."""
    return (
        [figure.median - figure.least for figure in figures],
        [figure.most - figure.median for figure in figures],
    )
