"""The file of rows: whatever tears it, it is resumed and nothing is lost or there twice."""

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

MODEL = ModelName(name="expressnet_moe", version="1")
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


def written(path: Path) -> bytes:
    with Ledger(path, Form.jsonl, RUN) as ledger:
        for each in ROWS:
            if not ledger.holds(each.source.key):
                ledger.write(each)
    return path.read_bytes()


def test_a_file_that_was_torn_anywhere_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    whole = written(path)
    assert whole.count(b"\n") == 4
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for length in {
        *range(0, len(whole), 23),
        *ends,
        *(end + 1 for end in ends),
        *(end + 2 for end in ends[:-1]),
    }:
        path.write_bytes(whole[:length])
        assert written(path) == whole
    assert written(path) == whole


def test_what_is_there_already_is_counted(tmp_path: Path) -> None:
    written(tmp_path / "rows")
    with Ledger(tmp_path / "rows", Form.jsonl, RUN) as ledger:
        assert (len(ledger), ledger.failed_before) == (4, 1)
        assert all(ledger.holds(each.source.key) for each in ROWS)
        assert not ledger.holds(row("c.jpg", 1).source.key)


@pytest.mark.parametrize(
    "content", [b"dear diary\n", b"dear diary", b'{"path": 1}\n', b"[1]\n", b"\0" * 40, b"path,bytes\n"]
)
@pytest.mark.parametrize("form", [Form.jsonl, Form.csv])
def test_a_file_of_somebody_else_is_left_as_it_is(form: Form, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"rows cannot be written to: it.*[^.]\.$"):
        Ledger(path, form, RUN)
    assert path.read_bytes() == content


def test_a_file_with_line_ends_of_old_macs_is_not_taken_for_one_torn_row(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    changed = written(path).replace(b"\n", b"\r")
    path.write_bytes(changed)
    with pytest.raises(LedgerError, match="its line 1 is not from this command") as refused:
        Ledger(path, Form.jsonl, RUN)
    assert path.read_bytes() == changed
    assert len(str(refused.value)) < 300


def test_line_ends_of_windows_are_resumed(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(written(path).replace(b"\n", b"\r\n"))
    with Ledger(path, Form.jsonl, RUN) as ledger:
        assert len(ledger) == 4


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (RunInfo(ModelName(name="other", version="1"), EmotionQuery(), EMOTIONS), "another model"),
        (RunInfo(MODEL, EmotionQuery(max_faces=3), EMOTIONS), "other options"),
    ],
)
def test_runs_that_do_not_agree_do_not_share_a_file(run: RunInfo, why: str, tmp_path: Path) -> None:
    written(tmp_path / "rows")
    with pytest.raises(LedgerError, match=why):
        Ledger(tmp_path / "rows", Form.jsonl, run)


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "rows", Form.jsonl, RUN),
        pytest.raises(LedgerError, match="another run writes"),
    ):
        Ledger(tmp_path / "rows", Form.jsonl, RUN)


def test_a_full_disk_is_told_of_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(file: int, data: memoryview) -> int:
        if len(data) <= 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(file, data[:100])

    original = os.write
    whole = written(tmp_path / "whole")
    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        with pytest.raises(LedgerError, match=r"rows cannot be written to: no space left on device\.$"):
            written(tmp_path / "rows")
    assert (tmp_path / "rows").stat().st_size >= 100
    assert written(tmp_path / "rows") == whole


@pytest.mark.parametrize("place", ["/dev/null", "folder", "file/below"])
def test_what_is_no_file_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"cannot be written to: .*\.$"):
        Ledger(tmp_path / place, Form.jsonl, RUN)
