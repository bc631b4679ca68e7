"""Writes lines of text on a thread, so that callers wait for no disk and no pipe."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

MAX_WAITING_LINES = 10_000
FLUSH_S = 1.0


class Lines:
    """A full pipe without a reader blocks only this thread.

    A line is lost if `MAX_WAITING_LINES` wait already or if it cannot be written; `lost` is called for each.
    Lines within `gather_s` are written together: to wake a thread costs more than to write a line.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        name: str,
        lost: Callable[[], object] = lambda: None,
        *,
        gather_s: float = 0.0,
    ) -> None:
        self._write = write
        self._lost = lost
        self._gather_s = gather_s
        # An event is set once all lines before it are written.
        self._waiting: SimpleQueue[str | threading.Event] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, line: str) -> None:
        if self._waiting.qsize() < MAX_WAITING_LINES:
            self._waiting.put(line + "\n")
        else:
            self._lost()

    def flush(self) -> None:
        """Wait until all lines are written, for `FLUSH_S` at most."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(FLUSH_S)

    def _run(self) -> None:
        while True:
            lines: list[str] = []
            entry: str | threading.Event | None = self._waiting.get()
            if self._gather_s:
                time.sleep(self._gather_s)
            while isinstance(entry, str):
                lines.append(entry)
                entry = self._next() if self._gather_s else None
            if lines:
                self._write_all(lines)
            if entry is not None:
                entry.set()

    def _next(self) -> str | threading.Event | None:
        try:
            return self._waiting.get_nowait()
        except Empty:
            return None

    def _write_all(self, lines: list[str]) -> None:
        try:
            self._write("".join(lines))
        except (OSError, ValueError):  # a full disk, a reader that left, a closed stream
            for _ in lines:
                with contextlib.suppress(Exception):
                    self._lost()
