"""The file that a run writes its rows to, and what earlier runs have written there already."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from service.predict.forms import Form
from service.predict.rows import (
    Row,
    RunInfo,
    csv_columns,
    csv_header,
    csv_model,
    csv_query,
    csv_rows,
    json_line,
)
from service.predict.sources import key_of


class LedgerError(Exception):
    """The file cannot be written, or not gone on with; one sentence that says why."""


class Ledger:
    """Rows of JSON or CSV, appended whole: what was written counts, whatever ends the process.

    A last row that was torn is cut off, so that its image is answered again. Eight bytes are kept in memory
    for each image that was answered before. Raises `LedgerError` for a file that holds anything else.
    """

    def __init__(self, path: Path, form: Form, run: RunInfo) -> None:
        self._path = path
        self._run = run
        self._encoded = json_line if form is Form.jsonl else csv_rows
        self.failed_before = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise self._refused((error.strerror or str(error)).lower()) from None
        try:
            self._known = self._read(form)
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
        """Images that were answered before."""
        return len(self._known)

    def holds(self, key: int) -> bool:
        """Whether this state of this image was answered before."""
        at = int(np.searchsorted(self._known, np.uint64(key)))
        return at < len(self._known) and int(self._known[at]) == key

    def write(self, row: Row) -> None:
        """Raises `LedgerError` when the disk takes no more."""
        self._append(self._encoded(row, self._run))

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise self._refused((error.strerror or str(error)).lower()) from None

    def _refused(self, why: str) -> LedgerError:
        return LedgerError(f"{self._path} cannot be written to: {why}.")

    def _read(self, form: Form) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise self._refused("it is not a regular file")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise self._refused("another run writes to it now") from None
        keys = array("Q")
        sound_bytes = 0
        # Its own descriptor stays open: the lock is on it.
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            images = self._json_images(file) if form is Form.jsonl else self._csv_images(file)
            for key, failed, ends_at in images:
                if key is not None:
                    keys.append(key)
                    self.failed_before += failed
                sound_bytes = ends_at
        os.ftruncate(self._file, sound_bytes)
        if form is Form.csv and not sound_bytes:
            self._append(csv_header(self._run))
        return np.sort(np.array(keys, np.uint64))

    def _json_images(self, file: BinaryIO) -> Iterator[tuple[int | None, bool, int]]:
        """(key of an image, whether it has a problem, where its row ends) of each whole row."""
        ends_at = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                self._check_torn(line, b'{"path":', number)
                return
            try:
                row = json.loads(line)
                path, stamp, model = row["path"], row.get("file", {}), row["model"]
                key = key_of(path, stamp.get("bytes"), stamp.get("modified"))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise self._foreign(number) from None
            self._check_same_run(
                model == self._run.model.model_dump(), row.get("query", {}) == self._run.options
            )
            ends_at += len(line)
            yield key, "problem" in row, ends_at

    def _csv_images(self, file: BinaryIO) -> Iterator[tuple[int | None, bool, int]]:
        """The same of each image all of whose rows are there."""
        columns, header = csv_columns(self._run), csv_header(self._run)
        first = file.readline()
        if not first.endswith(b"\n"):
            self._check_torn(first, header, 1)
            return
        if first != header:
            raise self._refused("it has other columns; it is of another run or of another --include")
        ends_at = len(first)
        yield None, False, ends_at
        expected = 0
        for number, line in enumerate(file, 2):
            if not line.endswith(b"\n"):
                return
            ends_at += len(line)
            try:
                (cells,) = csv.reader([line.decode()], strict=True)
                row = dict(zip(columns, cells, strict=True))
                size = int(row["bytes"]) if row["bytes"] else None
                faces = int(row["faces"] or 0)
                face = int(row["face"] or 0)
            except (ValueError, csv.Error):
                raise self._foreign(number) from None
            if face != expected:
                raise self._foreign(number)
            self._check_same_run(row["model"] == csv_model(self._run), row["query"] == csv_query(self._run))
            expected = face + 1
            if expected >= faces:
                expected = 0
                yield key_of(row["path"], size, row["modified"] or None), bool(row["problem"]), ends_at

    def _check_torn(self, line: bytes, beginning: bytes, number: int) -> None:
        """What is cut off must be ours."""
        if not line.startswith(beginning) and not beginning.startswith(line):
            raise self._foreign(number)

    def _check_same_run(self, same_model: bool, same_query: bool) -> None:
        if not same_model:
            raise self._refused("another model answered there")
        if not same_query:
            raise self._refused("it was asked with other options; use the same, or another file")

    def _foreign(self, number: int) -> LedgerError:
        return self._refused(f"its line {number} is not of this command, so it is left as it is")
