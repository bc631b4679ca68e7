"""Files that are complete at any time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which replaces `path` at the end: readers see the old or the new content.

    An error, a full disk or Ctrl-C does not change `path`.
    """
    partial = path.with_suffix(".partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
