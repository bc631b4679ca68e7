"""What is kept of a recording that was analysed."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from service.api.recordings import RecordingQuery
from service.api.schemas import ModelName
from service.core.errors import VideoTooLong
from service.recordings.chart import CANVASES, Form
from service.recordings.rows import csv_columns, csv_rows

# A store keeps the results of many recordings.
MAX_TIMELINE_BYTES = 32 * 2**20
ROWS_AT_A_TIME = 200


class TimelineHead(BaseModel):
    """What all frames of a timeline share. labels: emotions of the model."""

    model: ModelName
    labels: tuple[str, ...]
    query: RecordingQuery


@dataclass(frozen=True, slots=True)
class Results:
    """report: JSON. timeline: compressed lines of JSON. pictures: files by form.

    head: for the forms of the timeline. In group mode there is only a report.
    """

    report: bytes
    timeline: bytes = b""
    pictures: Mapping[Form, bytes] = field(default_factory=dict)
    head: TimelineHead | None = None

    @property
    def fields(self) -> dict[str, bytes]:
        """As a hash of a store."""
        head = b"" if self.head is None else self.head.model_dump_json().encode()
        return {"report": self.report, "timeline": self.timeline, "head": head} | dict(self.pictures)

    @classmethod
    def of(cls, fields: Mapping[str, bytes]) -> Results:
        head = TimelineHead.model_validate_json(fields["head"]) if fields["head"] else None
        pictures = {form: fields[form] for form in CANVASES if form in fields}
        return cls(fields["report"], fields["timeline"], pictures, head)


class Lines:
    """Compresses the frames of a timeline as they come."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj()
        self._parts: list[bytes] = []
        self._bytes = 0

    def add(self, frame: Mapping[str, Any]) -> None:
        """Raises `VideoTooLong` if there is too much to keep."""
        self._keep(self._compressor.compress(to_json(frame) + b"\n"))
        if self._bytes > MAX_TIMELINE_BYTES:
            raise VideoTooLong(
                f"its timeline exceeds {MAX_TIMELINE_BYTES} bytes; choose a smaller fps or max_faces"
            )

    def end(self) -> bytes:
        """All lines. Called once."""
        self._keep(self._compressor.flush())
        return b"".join(self._parts)

    def _keep(self, part: bytes) -> None:
        self._parts.append(part)
        self._bytes += len(part)


def as_json_lines(timeline: bytes) -> Iterator[bytes]:
    """Parts of the text: one line for each frame."""
    inflate = zlib.decompressobj()
    for start in range(0, len(timeline), 1 << 16):
        yield inflate.decompress(timeline[start : start + (1 << 16)])
    yield inflate.flush()


def as_json(timeline: bytes, model: ModelName) -> Iterator[bytes]:
    """Parts of a `Timeline`."""
    yield b'{"model":' + to_json(model) + b',"frames":['
    for number, line in enumerate(_lines(timeline)):
        yield b"," * (number > 0) + line
    yield b"]}"


def as_csv(timeline: bytes, labels: Sequence[str], query: RecordingQuery) -> Iterator[bytes]:
    """Parts of the text: a header, and one row for each face of each frame."""
    columns = csv_columns(labels, query)
    yield ",".join(columns).encode() + b"\n"
    rows: list[dict[str, Any]] = []
    for line in _lines(timeline):
        rows += csv_rows(json.loads(line), labels, query)
        if len(rows) >= ROWS_AT_A_TIME:
            yield _csv(columns, rows)
            rows = []
    yield _csv(columns, rows)


def _lines(timeline: bytes) -> Iterator[bytes]:
    rest = b""
    for part in as_json_lines(timeline):
        *lines, rest = (rest + part).split(b"\n")
        yield from lines


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
