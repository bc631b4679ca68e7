"""`expressnet report` over answers and reports of sessions."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.http import examples
from service.http.examples import as_json


def rows(*paths: Path) -> list[dict[str, str]]:
    done = CliRunner().invoke(app, ["report", *map(str, paths)])
    assert done.exit_code == 0, done.output
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_answers_of_a_folder_are_summed(tmp_path: Path) -> None:
    photo = as_json(examples.IMAGE)
    poor = {
        **photo["faces"][0],
        "emotion": "fear",
        "verdict": "uncertain",
        "reasons": ["low_confidence", "blurred"],
    }
    unsure = {**photo["faces"][0], "emotion": "anger", "verdict": "uncertain", "reasons": ["low_confidence"]}
    lines = [
        photo,
        {**photo, "faces": [poor, unsure]},
        {"problem": as_json(examples.FRAME_PROBLEM)["problem"]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "b.json").write_text(json.dumps({**photo, "faces": []}, indent=1))
    (tmp_path / "c.json").write_text(json.dumps(as_json(examples.BATCH)))
    (tmp_path / "photo.jpg").write_bytes(b"")
    (row,) = rows(tmp_path)
    assert row["part"] == "answers"
    assert (row["images"], row["faces"], row["absent"], row["unreadable"]) == ("4", "4", "0.25", "0.25")
    assert (row["happiness"], row["anger"], row["fear"], row["certain"]) == (
        "0.6667",
        "0.3333",
        "0.0",
        "0.6667",
    )


def test_the_report_of_a_session_becomes_rows(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(examples.SESSION_REPORT.model_dump_json(exclude_none=True))
    found = rows(file)
    assert [row["part"] for row in found] == ["Lesson 4 0:00", "Lesson 4", "Lesson 4 anna"]
    assert {(row["images"], row["absent"], row["happiness"]) for row in found} == {("30", "0.1", "1.0")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "neither an answer"),
        ('{"a": 1}', "neither an answer"),
        (None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "x.json"
    if text is not None:
        file.write_text(text)
    done = CliRunner().invoke(app, ["report", str(file)])
    assert done.exit_code == 2
    assert f"{file}: {reason}" in done.stderr
