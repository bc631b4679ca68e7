"""`expressnet report`: sums answers, and shows the report of a session as a table."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

Row = dict[str, Any]
COLUMNS = ("part", "participants", "images", "faces", "absent", "unreadable", "certain")


def report_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="Answers or reports of sessions, as files of JSON or JSON lines, or folders of these.",
        ),
    ],
) -> None:
    """Sum answers to photos, and show reports of sessions: a table on a terminal, else CSV.

    Exit codes: 0, or 2 if a file cannot be used.
    """
    answers: list[Row] = []
    rows: list[Row] = []
    for path in _files(paths):
        for document in _documents(path):
            if "bins" in document:
                rows += _session_rows(document)
            elif "faces" in document:
                answers.append(document)
            elif "results" in document:  # a batch
                answers += [
                    item["result"] for item in document["results"] if "faces" in item.get("result", {})
                ]
            elif "problem" not in document and "error" not in document:
                _refuse(path, "neither an answer with faces nor the report of a session")
    if answers:
        rows.append(_answers_row(answers))
    labels = list(dict.fromkeys(label for row in rows for label in row if label not in COLUMNS))
    _write(rows, [*COLUMNS, *labels])


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        found = sorted(path.glob("*.json*")) if path.is_dir() else [path]
        if not found:
            _refuse(path, "the folder has no JSON")
        yield from found


def _documents(path: Path) -> Iterator[Row]:
    try:
        text = path.read_text(encoding="utf-8")
        try:
            documents = [json.loads(text)]
        except ValueError:
            documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    except OSError as error:
        _refuse(path, (error.strerror or "cannot be read").lower())
    except (ValueError, RecursionError):
        _refuse(path, "not JSON")
    for document in documents:
        if not isinstance(document, dict):
            _refuse(path, "neither an answer with faces nor the report of a session")
        yield document


def _refuse(path: Path, reason: str) -> NoReturn:
    typer.echo(f"expressnet: {path}: {reason}.", err=True)
    raise SystemExit(2)


def _session_rows(report: Row) -> Iterator[Row]:
    name = report["name"] or report["id"]
    for part in report["bins"]:
        start_s = round(part["start_s"])
        yield _shares_row(f"{name} {start_s // 3600}:{start_s // 60 % 60:02}", part.get("group"))
    yield _shares_row(name, report.get("group"))
    for person in report.get("participants", ()):
        yield _shares_row(f"{name} {person['participant']}", person)


def _shares_row(part: str, shares: Row | None) -> Row:
    known = {name: value for name, value in (shares or {}).items() if name in COLUMNS}
    return {"part": part, **known, **(shares or {}).get("image_share", {})}


def _answers_row(answers: list[Row]) -> Row:
    """`unreadable` is a share of the faces, the emotions and `certain` of the readable faces."""
    faces = [face for answer in answers for face in answer["faces"]]
    readable = [face for face in faces if not set(face.get("reasons", ())) - {"low_confidence"}]
    row = {
        "part": "answers",
        "images": len(answers),
        "faces": len(faces),
        "absent": _share(sum(not answer["faces"] for answer in answers), len(answers)),
    }
    if faces:
        row["unreadable"] = _share(len(faces) - len(readable), len(faces))
    if readable:
        row["certain"] = _share(sum(face["verdict"] == "certain" for face in readable), len(readable))
        emotions = [face["emotion"] for face in readable]
        labels = readable[0].get("probabilities", dict.fromkeys(emotions))
        row |= {label: _share(emotions.count(label), len(emotions)) for label in labels}
    return row


def _share(count: int, of: int) -> float:
    return round(count / of, 4)


def _write(rows: list[Row], columns: list[str]) -> None:
    if not sys.stdout.isatty():
        writer = csv.DictWriter(sys.stdout, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    from rich.console import Console
    from rich.table import Table

    used = [name for name in columns if any(name in row for row in rows)]
    table = Table(*used)
    for row in rows:
        table.add_row(*(_cell(row.get(name, "")) for name in used))
    Console().print(table)


def _cell(value: object) -> str:
    return f"{value:.0%}" if isinstance(value, float) else str(value)
