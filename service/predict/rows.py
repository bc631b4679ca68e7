"""One image's answer as JSON, as rows of CSV, and as lines of a table."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from rich.table import Table
from rich.text import Text

from service.api.columns import face_columns, flat
from service.api.recordings import DEFAULT_FPS
from service.api.schemas import EmotionQuery, ModelName
from service.api.shaping import shape_faces, shape_image
from service.core.arrays import corner_and_size
from service.core.errors import Internal, ServiceError
from service.core.seen import Seen
from service.predict.sources import Source


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why an image has no answer. code: an error code of the API, or `file_unreadable`."""

    code: str
    title: str
    detail: str

    @classmethod
    def of(cls, error: ServiceError) -> RowProblem:
        detail = "The failure was logged." if isinstance(error, Internal) else error.detail
        return cls(error.code, error.title, detail)


@dataclass(frozen=True, slots=True)
class Row:
    """An image with its answer or its problem."""

    source: Source
    seen: Seen | None = None
    problem: RowProblem | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What all rows of a run share.

    labels: emotions of the model; fps: frames of each second of a video; bom: whether CSV begins with a byte
    order mark.
    """

    model: ModelName
    query: EmotionQuery
    labels: tuple[str, ...]
    fps: float = DEFAULT_FPS
    bom: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Options of the run that differ from their defaults."""
        options = self.query.model_dump(mode="json", exclude_defaults=True)
        return options if self.fps == DEFAULT_FPS else options | {"fps": self.fps}


def json_head(source: Source, run: RunInfo) -> dict[str, Any]:
    """What every line of JSON begins with."""
    content: dict[str, Any] = {"path": source.shown}
    if source.bytes is not None:
        content["file"] = {"bytes": source.bytes, "modified": source.modified}
    content["model"] = run.model
    if options := run.options:
        content["query"] = options
    return content


def json_line(row: Row, run: RunInfo) -> bytes:
    """The path and the fields of `POST /v1/emotions`, as one line of JSON."""
    content = json_head(row.source, run)
    if row.seen is not None:
        content |= shape_image(row.seen, run.query).model_dump(exclude_none=True)
    if row.problem is not None:
        content["problem"] = row.problem
    return to_json(content) + b"\n"


HEAD = (
    *("path", "bytes", "modified", "model", "query"),
    *("image_width", "image_height", "faces_found", "faces", "face"),
)
TAIL = ("problem", "detail")


def csv_columns(run: RunInfo) -> list[str]:
    """Names of the columns. A face has the requested fields of the API; dots join nested names."""
    return [*HEAD, *face_columns(run.labels, run.query), *TAIL]


def csv_rows(row: Row, run: RunInfo) -> bytes:
    """One line for each face; one line for an image without a face or without an answer."""
    head = {
        "path": row.source.shown,
        "bytes": row.source.bytes,
        "modified": row.source.modified,
        "model": csv_model(run),
        "query": csv_query(run),
    }
    found: list[dict[str, Any]] = [{}]
    if row.problem is not None:
        found = [{"problem": row.problem.code, "detail": row.problem.detail}]
    if (seen := row.seen) is not None:
        head |= {"image_width": seen.width, "image_height": seen.height}
        head |= {"faces_found": seen.faces_found, "faces": seen.face_count}
        faces = [face.model_dump(exclude_none=True) for face in shape_faces(seen, run.query)]
        found = [{"face": index, **dict(flat(face))} for index, face in enumerate(faces)] or [{}]
    text = io.StringIO()
    writer = csv.DictWriter(text, csv_columns(run), restval="", lineterminator="\n")
    writer.writerows({**head, **each} for each in found)
    return text.getvalue().encode()


def csv_header(run: RunInfo, columns: Iterable[str]) -> bytes:
    # Excel takes a file without the mark for the old code page of its system.
    mark = codecs.BOM_UTF8 if run.bom else b""
    return mark + ",".join(columns).encode() + b"\n"


def csv_model(run: RunInfo) -> str:
    return f"{run.model.name} {run.model.version} {run.model.prior}"


def csv_query(run: RunInfo) -> str:
    sent = {
        name: ",".join(value) if isinstance(value, list) else value for name, value in run.options.items()
    }
    return "&".join(f"{name}={str(value).lower()}" for name, value in sent.items())


WIDTHS = {"face": 4, "emotion": 9, "sure": 7, "verdict": 9, "box": 22}
TO_THE_RIGHT = ("face", "sure")


class TableLines:
    """Table rows that are printed one by one. Text that is too wide for its column is cut."""

    def __init__(self, width: int) -> None:
        rest = sum(WIDTHS.values()) + 2 * len(WIDTHS)
        self._path_width = max(16, width - rest)
        self._note_width = rest - 2

    def header(self) -> Table:
        return self._faces(show_header=True)

    def lines(self, row: Row) -> Table:
        # The end of a path tells more than its beginning.
        path = row.source.shown
        path = path if len(path) <= self._path_width else "…" + path[1 - self._path_width :]
        if row.problem is not None:
            return self._note(path, f"{row.problem.code}: {row.problem.detail}", "red")
        if (seen := row.seen) is None or not seen.face_count:
            return self._note(path, "no face", "dim")
        table = self._faces(show_header=False)
        for face, (left, top, width, height) in enumerate(corner_and_size(seen.boxes).tolist()):
            style = "" if seen.verdict(face) == "certain" else "yellow"
            table.add_row(
                Text(path if face == 0 else ""),
                str(face),
                Text(seen.emotions[face], style),
                Text(f"{100 * seen.confidences[face]:.1f} %", style),
                Text(seen.verdict(face), style),
                f"{width:.0f}x{height:.0f} at {left:.0f},{top:.0f}",
            )
        if more := seen.faces_found - seen.face_count:
            table.add_row("", "", Text(f"{more} more", "dim"))
        return table

    def _faces(self, show_header: bool) -> Table:
        table = Table(box=None, show_header=show_header, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("image", width=self._path_width, no_wrap=True, overflow="ellipsis")
        for name, width in WIDTHS.items():
            table.add_column(
                name,
                width=width,
                no_wrap=True,
                overflow="ellipsis",
                justify="right" if name in TO_THE_RIGHT else "left",
            )
        return table

    def _note(self, path: str, note: str, style: str) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(width=self._path_width, no_wrap=True, overflow="ellipsis")
        table.add_column(width=self._note_width, overflow="fold")
        table.add_row(Text(path), Text(note, style))
        return table
