"""A plot of a run: images/s of the service and its peers, and latency by arrival rate."""

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
from tests.bench.throughput import SHARES, open_loop_name

SERVICE_COLOUR, FER_COLOUR, TAIL_COLOUR = "#1f6fb2", "#b8b8b8", "#d1662b"


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Write a PNG. Raises `ValueError` if the run has no figures for it."""
    by_name = {figure.name: figure for figure in figures}
    panels = [
        panel
        for panel, needed in (
            (_draw_peers, {f"{mode.service_name}, {CALLERS} callers" for mode in MODES}),
            (_draw_latency, {open_loop_name(SHARES[0], "p50")}),
        )
        if needed & by_name.keys()
    ]
    if not panels:
        raise ValueError("a plot needs the part `service` or `peers`")
    picture, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 3.6), squeeze=False)
    for panel, ax in zip(panels, axes[0], strict=True):
        panel(ax, by_name)
        ax.spines[["top", "right"]].set_visible(False)
    picture.tight_layout()
    picture.savefig(path, dpi=150)
    plt.close(picture)


def _draw_peers(ax: Axes, figures: dict[str, Figure]) -> None:
    names = [name for mode in MODES for name in (mode.service_name, mode.fer_name)]
    shown = [
        figures[f"{name}, {CALLERS} callers"] for name in names if f"{name}, {CALLERS} callers" in figures
    ]
    of_service = {f"{mode.service_name}, {CALLERS} callers" for mode in MODES}
    medians = [figure.median for figure in shown]
    bars = ax.barh(
        [figure.name.removesuffix(f", {CALLERS} callers") for figure in shown],
        medians,
        xerr=_whiskers(shown),
        color=[SERVICE_COLOUR if figure.name in of_service else FER_COLOUR for figure in shown],
        error_kw={"ecolor": "#444444", "capsize": 3},
    )
    ax.bar_label(bars, [f"{median:.3g}" for median in medians], padding=6)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel="images/s", title=f"640x480, one face, {CALLERS} callers")


def _draw_latency(ax: Axes, figures: dict[str, Figure]) -> None:
    for what, colour, offset in (("p99", TAIL_COLOUR, 7), ("p50", SERVICE_COLOUR, -7)):
        shown = [figures[open_loop_name(share, what)] for share in SHARES]
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
        yscale="log",  # so that one slow round does not flatten the curve
        xlabel="arrival rate, % of saturation with 8 callers",
        ylabel="ms from the scheduled arrival",
        title="640x480, one face, constant arrivals",
    )
    ax.yaxis.set_major_formatter("{x:g}")
    # The default labels of minor ticks are powers of ten with factors.
    ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))


def _whiskers(figures: Sequence[Figure]) -> tuple[list[float], list[float]]:
    """The distances of min and max from the median."""
    return (
        [figure.median - figure.min for figure in figures],
        [figure.max - figure.median for figure in figures],
    )
