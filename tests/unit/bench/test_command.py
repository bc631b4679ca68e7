"""The command line of `make bench`, and the rows that it prints."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from tests.bench.__main__ import main, read_photos, setting, table_row
from tests.bench.figures import Figure, Remark, Row, Unmeasured, alternating


def test_a_setting_has_a_name_and_a_value() -> None:
    assert setting("EXPRESSNET_PROCESSES=2") == ("EXPRESSNET_PROCESSES", "2")
    assert setting("EXPRESSNET_TRITON_URL=a=b") == ("EXPRESSNET_TRITON_URL", "a=b")


@pytest.mark.parametrize("text", ["EXPRESSNET_PROCESSES", "PROCESSES=2", ""])
def test_a_malformed_setting_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not like"):
        setting(text)


def test_photos_come_from_a_file_or_a_folder(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder").mkdir()
    assert list(read_photos(tmp_path).items()) == [("a.jpg", b"a.jpg"), ("b.jpg", b"b.jpg")]
    assert read_photos(tmp_path / "b.jpg") == {"b.jpg": b"b.jpg"}


def test_every_row_has_the_same_number_of_cells() -> None:
    rows: list[Row] = [
        Figure("one", "ms", 1.5, 1, 2, "note"),
        Remark("two", "text"),
        Unmeasured("three", "why"),
    ]
    assert [table_row(row) for row in rows] == [
        "| one | 1.50 ms | 1.00 | 2.00 | note |",
        "| two | | | | text |",
        "| three | not measured | | | why |",
    ]


def test_alternating_calls_reverse_their_order_after_each_round() -> None:
    called: list[str] = []

    def call(name: str) -> int:
        called.append(name)
        return len(called)

    assert alternating(lambda: call("this"), lambda: call("other"), rounds=3) == [[1, 4, 5], [2, 3, 6]]
    assert called == ["this", "other", "other", "this", "this", "other"]


def test_an_unknown_part_is_reported_with_the_known_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "verses"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "verses: the parts are stages, networks, service, footprint" in capsys.readouterr().err
