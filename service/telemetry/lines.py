"""Lines of text, written by a thread of their own: whoever has one to write waits for no disk and no pipe."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

MAX_WAITING_LINES = 10_000
FLUSH_S = 1.0


class Lines:
    """On a full pipe that nobody reads, only this thread stands still.

    Lines that come while `MAX_WAITING_LINES` wait are lost, and so are those that cannot be written; `lost`
    is called for each. Those that come within `gather_s` are written as one: to wake a thread costs more than
    a line.
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
        # An event is set once all that came before it is written.
        self._waiting: SimpleQueue[str | threading.Event] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, line: str) -> None:
        if self._waiting.qsize() < MAX_WAITING_LINES:
            self._waiting.put(line + "\n")
        else:
            self._lost()

    def flush(self) -> None:
        """Wait until all is written, but not for ever."""
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
