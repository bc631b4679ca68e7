"""Lines of text, written by a thread of their own: whoever has one to write waits for no disk and no pipe."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable

LINES = 10_000
FLUSH_S = 1.0


class Lines:
    """On a full pipe that nobody reads, only this thread stands still.

    Lines that come while `LINES` wait are lost, and so are those that cannot be written; `lost` is called
    for each.
    """

    def __init__(
        self, write: Callable[[str], object], name: str, lost: Callable[[], object] = lambda: None
    ) -> None:
        self._write = write
        self._lost = lost
        self._lines: queue.Queue[str] = queue.Queue(LINES)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, line: str) -> None:
        try:
            self._lines.put_nowait(line + "\n")
        except queue.Full:
            self._lost()

    def flush(self) -> None:
        """Wait until all is written, but not for ever."""
        ends_at = time.monotonic() + FLUSH_S
        with self._lines.all_tasks_done:
            while self._lines.unfinished_tasks and (left_s := ends_at - time.monotonic()) > 0:
                self._lines.all_tasks_done.wait(left_s)

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            try:
                self._write(line)
            except (OSError, ValueError):  # a full disk, a reader that left, a closed stream
                with contextlib.suppress(Exception):
                    self._lost()
            self._lines.task_done()
