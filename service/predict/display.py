"""Writes rows as they arrive, and shows the progress on a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from service.predict.forms import Form
from service.predict.ledger import Ledger
from service.predict.rows import Row, RunInfo, TableLines, csv_columns, csv_header, csv_rows, json_line


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")


class Display:
    """Writes rows to the ledger or to standard output, with a bar if standard error is a terminal."""

    def __init__(
        self, form: Form, run: RunInfo, ledger: Ledger | None, paths: Callable[[], Iterator[str]]
    ) -> None:
        self._form = form
        self._run = run
        self._ledger = ledger
        self._paths = paths
        self._skipped = 0
        self._total: int | None = None
        self._out = Console(highlight=False)
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(stderr=True, highlight=False),
                transient=True,
                # Rows go to standard output, never to the bar's console.
                redirect_stdout=False,
            )
            self._task = self._bar.add_task("", total=None)
            if sys.stdout.isatty():
                # Both share one screen: rows are printed above the bar.
                self._out = self._bar.console
        self._table = TableLines(self._out.width)

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
            threading.Thread(target=self._count, name="count", daemon=True).start()
        if self._ledger is None and self._form is Form.table:
            self._out.print(self._table.header())
        elif self._ledger is None and self._form is Form.csv:
            self._write(csv_header(self._run, csv_columns(self._run)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, row: Row) -> None:
        if self._ledger is not None:
            self._ledger.write(row)
        elif self._form is Form.table:
            self._out.print(self._table.lines(row))
        else:
            self._write((csv_rows if self._form is Form.csv else json_line)(row, self._run))
        if self._bar is not None:
            self._bar.advance(self._task)

    def skipped(self) -> None:
        """Subtract one image, answered by an earlier run, from the bar's total."""
        self._skipped += 1
        self._retotal()

    def _write(self, data: bytes) -> None:
        if self._bar is not None and sys.stdout.isatty():
            self._out.print(data.decode(), end="", markup=False, soft_wrap=True)
            return
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def _count(self) -> None:
        self._total = sum(1 for _ in self._paths())
        self._retotal()

    def _retotal(self) -> None:
        if self._bar is not None and self._total is not None:
            self._bar.update(self._task, total=max(0, self._total - self._skipped))
