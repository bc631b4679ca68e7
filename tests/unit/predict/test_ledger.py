"""The file of rows: a torn file is resumed, and no row is lost or written twice."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from service.api.schemas import EmotionQuery, ModelName
from service.core.manifest import EMOTIONS
from service.predict.forms import Form
from service.predict.ledger import Ledger, LedgerError
from service.predict.rows import Row, RowProblem, RunInfo
from service.predict.sources import Source
from tests.seen import FaceSeen, seen

MODEL = ModelName(name="expressnet_moe", version="1", prior="balanced")
RUN = RunInfo(MODEL, EmotionQuery(), EMOTIONS)


def row(name: str, faces: int) -> Row:
    image = seen(*[FaceSeen(confidence=0.3, verdict="uncertain")] * faces)
    return Row(Source(name, len(name), "2026-11-21T22:50:39.000001+00:00"), image)


ROWS = [
    row("a.jpg", 1),
    Row(
        Source("gone.jpg"),
        problem=RowProblem("file_unreadable", "The file cannot be read", 'no "such", file'),
    ),
    row('odd, "name" of ümlauts.jpg', 0),
    row("b.jpg", 3),
]


def write_rows(path: Path) -> bytes:
    with Ledger(path, Form.jsonl, RUN) as ledger:
        for each in ROWS:
            if not ledger.holds(each.source.key):
                ledger.write(each)
    return path.read_bytes()


def test_a_file_that_is_torn_at_any_place_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    whole = write_rows(path)
    assert whole.count(b"\n") == 4
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for length in {
        *range(0, len(whole), 23),
        *ends,
        *(end + 1 for end in ends),
        *(end + 2 for end in ends[:-1]),
    }:
        path.write_bytes(whole[:length])
        assert write_rows(path) == whole
    assert write_rows(path) == whole


def test_existing_rows_are_counted(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows")
    with Ledger(tmp_path / "rows", Form.jsonl, RUN) as ledger:
        assert (len(ledger), ledger.failed_before) == (4, 1)
        assert all(ledger.holds(each.source.key) for each in ROWS)
        assert not ledger.holds(row("c.jpg", 1).source.key)


@pytest.mark.parametrize(
    "content", [b"dear diary\n", b"dear diary", b'{"path": 1}\n', b"[1]\n", b"\0" * 40, b"path,bytes\n"]
)
@pytest.mark.parametrize("form", [Form.jsonl, Form.csv])
def test_a_file_with_other_content_is_not_changed(form: Form, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"rows cannot be written to: it.*[^.]\.$"):
        Ledger(path, form, RUN)
    assert path.read_bytes() == content


def test_a_file_with_carriage_returns_is_not_taken_for_one_torn_row(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    changed = write_rows(path).replace(b"\n", b"\r")
    path.write_bytes(changed)
    with pytest.raises(LedgerError, match="its line 1 is not from this command") as refused:
        Ledger(path, Form.jsonl, RUN)
    assert path.read_bytes() == changed
    assert len(str(refused.value)) < 300


def test_a_file_with_windows_line_ends_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(write_rows(path).replace(b"\n", b"\r\n"))
    with Ledger(path, Form.jsonl, RUN) as ledger:
        assert len(ledger) == 4


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            RunInfo(ModelName(name="other", version="1", prior="balanced"), EmotionQuery(), EMOTIONS),
            "another model",
        ),
        (RunInfo(MODEL, EmotionQuery(max_faces=3), EMOTIONS), "other options"),
    ],
)
def test_a_run_with_another_model_or_other_options_is_refused(
    run: RunInfo, message: str, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows")
    with pytest.raises(LedgerError, match=message):
        Ledger(tmp_path / "rows", Form.jsonl, run)


def test_two_runs_cannot_write_to_one_file(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "rows", Form.jsonl, RUN),
        pytest.raises(LedgerError, match="another run writes"),
    ):
        Ledger(tmp_path / "rows", Form.jsonl, RUN)


def test_a_run_reports_a_full_disk_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(file: int, data: memoryview) -> int:
        if len(data) <= 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(file, data[:100])

    original = os.write
    whole = write_rows(tmp_path / "whole")
    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        with pytest.raises(LedgerError, match=r"rows cannot be written to: no space left on device\.$"):
            write_rows(tmp_path / "rows")
    assert (tmp_path / "rows").stat().st_size >= 100
    assert write_rows(tmp_path / "rows") == whole


@pytest.mark.parametrize("place", ["/dev/null", "folder", "file/below"])
def test_a_path_that_cannot_be_a_file_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"cannot be written to: .*\.$"):
        Ledger(tmp_path / place, Form.jsonl, RUN)
