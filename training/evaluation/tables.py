"""Tables in Markdown, aligned for terminals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.core.manifest import Metric


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table, and an empty line."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in (cells[0], ["-" * width for width in widths], *cells[1:])
    ]
    return [*lines, ""]


def shown(metric: Metric) -> str:
    """A figure as text: value, interval and sample count."""
    interval = "" if metric.interval is None else f" [{metric.interval[0]:.3f}, {metric.interval[1]:.3f}]"
    return f"{metric.value:.3f}{interval} n={metric.samples}"
