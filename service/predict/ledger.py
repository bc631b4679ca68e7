"""The output file of a run, which may hold rows of earlier runs."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from service.core.errors import reason_of
from service.predict.forms import Form
from service.predict.rows import Row, RunInfo, csv_columns, csv_header, csv_rows, json_line
from service.predict.sources import key_of


class LedgerError(Exception):
    """The file cannot be written, or its run cannot be resumed. The message is one sentence."""


class Ledger:
    """Appends rows as JSON or CSV. Written rows survive any end of the process.

    JSON lines resume: images and complete videos in the file are skipped. An incomplete last row is removed,
    and its image is answered again. CSV needs an empty file. Raises `LedgerError` for any other content.

    header: the first line of CSV, if it is not that of images.
    """

    def __init__(self, path: Path, form: Form, run: RunInfo, header: bytes | None = None) -> None:
        self.path = path
        self._run = run
        self._header = csv_header(run, csv_columns(run)) if header is None else header
        self.resumes = form is Form.jsonl
        self._encoded = json_line if self.resumes else csv_rows
        self._known: set[int] = set()
        # The key of each video without its last row, and where its first row begins.
        self._unfinished: dict[int, int] = {}
        self.failed_before = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise self._refused(reason_of(error)) from None
        try:
            self._lock()
            if self.resumes:
                self._resume()
            else:
                self._begin_csv()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        """Number of images that earlier runs answered."""
        return len(self._known)

    def holds(self, key: int) -> bool:
        """Whether an earlier run answered this image with the same file state."""
        return key in self._known

    def unfinished(self, key: int) -> Iterator[dict[str, Any]]:
        """The rows of the frames that earlier runs answered of this video."""
        if key not in self._unfinished:
            return
        with open(self._file, "rb", closefd=False) as file:
            file.seek(self._unfinished[key])
            for line in file:
                row = json.loads(line)
                if "time_s" in row and _key_of(row) == key:
                    yield row

    def write(self, row: Row) -> None:
        """Raises `LedgerError` if the file cannot be written, such as on a full disk."""
        self.append(self._encoded(row, self._run))

    def append(self, data: bytes) -> None:
        """Raises `LedgerError` as `write` does. data: whole lines."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise self._refused(reason_of(error)) from None

    def _refused(self, why: str) -> LedgerError:
        return LedgerError(f"{self.path} cannot be written to: {why}.")

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise self._refused("it is not a regular file")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise self._refused("another run writes to it now") from None

    def _begin_csv(self) -> None:
        if os.fstat(self._file).st_size:
            raise self._refused("it is not empty, and CSV cannot resume; JSON lines can")
        self.append(self._header)

    def _resume(self) -> None:
        whole_bytes = 0
        # The descriptor stays open: it holds the lock.
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    self._check_torn(line, number)
                    break
                self._add(line, number, whole_bytes)
                whole_bytes += len(line)
        os.ftruncate(self._file, whole_bytes)

    def _add(self, line: bytes, number: int, at: int) -> None:
        try:
            row = json.loads(line)
            key, model = _key_of(row), row["model"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self._foreign(number) from None
        if model != self._run.model.model_dump():
            raise self._refused("its rows are from another model")
        if row.get("query", {}) != self._run.options:
            raise self._refused("its rows were made with other options; use these options, or another file")
        if "time_s" in row:  # one frame of a video
            self._unfinished.setdefault(key, at)
            return
        self._unfinished.pop(key, None)
        self._known.add(key)
        self.failed_before += "problem" in row

    def _check_torn(self, line: bytes, number: int) -> None:
        """Raises `LedgerError` unless the line is the beginning of a row. Rows contain no line ends."""
        beginning = b'{"path":'
        if b"\r" in line or not (line.startswith(beginning) or beginning.startswith(line)):
            raise self._foreign(number)

    def _foreign(self, number: int) -> LedgerError:
        return self._refused(f"its line {number} is not from this command")


def _key_of(row: dict[str, Any]) -> int:
    stamp = row.get("file", {})
    return key_of(row["path"], stamp.get("bytes"), stamp.get("modified"))
