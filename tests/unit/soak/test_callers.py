"""The checks of the soak: which answers they accept, and which they report."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.bench.load import Answer, Request
from tests.soak.__main__ import Row, table
from tests.soak.callers import Record, check_answer
from tests.soak.traffic import Case, Traffic
from tests.soak.watch import slope

REQUEST = Request("127.0.0.1", 1, b"")


def answer(faces: int) -> Answer:
    return Answer(0.1, body=json.dumps({"faces": [{}] * faces}).encode())


def batch(*faces: int | None) -> Answer:
    results: list[Any] = [
        {"problem": {}} if count is None else {"result": {"faces": [{}] * count}} for count in faces
    ]
    return Answer(0.1, body=json.dumps({"results": results}).encode())


@pytest.mark.parametrize(
    ("case", "received"),
    [
        (Case("photo", REQUEST, "200", (1,)), answer(1)),
        (Case("photo", REQUEST, "200", (0,)), answer(0)),
        (Case("batch", REQUEST, "200", (8, None, 0)), batch(8, None, 0)),
        (Case("garbage", REQUEST, "400"), Answer(0.1, "400")),
    ],
)
def test_an_expected_answer_is_accepted(case: Case, received: Answer) -> None:
    record = Record()
    check_answer(case, received, record)
    assert record.unexpected == []


@pytest.mark.parametrize(
    ("case", "received"),
    [
        (Case("photo", REQUEST, "200", (1,)), answer(0)),
        (Case("photo", REQUEST, "200", (1,)), Answer(0.1, "500")),
        (Case("photo", REQUEST, "200", (1,)), Answer(0.1, "429")),
        (Case("photo", REQUEST, "200", (1,)), Answer(0.1, "IncompleteReadError")),
        (Case("batch", REQUEST, "200", (8, None)), batch(None, 8)),
        (Case("batch", REQUEST, "200", (8, 1)), batch(8)),
        (Case("garbage", REQUEST, "400"), answer(1)),
    ],
)
def test_an_unexpected_answer_or_a_failure_is_reported(case: Case, received: Answer) -> None:
    record = Record()
    check_answer(case, received, record)
    assert len(record.unexpected) == 1


def test_the_mixture_has_every_kind_and_depends_only_on_the_seed() -> None:
    def first(count: int) -> list[Case]:
        return list(itertools.islice(Traffic("http://127.0.0.1:1", seed=3), count))

    cases = first(200)
    assert {each.manner for each in cases} == {"whole", "slowly", "cut", "left"}
    assert {each.status for each in cases} == {"200", "400", "415", "422", ""}
    assert [each.kind for each in cases] == [each.kind for each in first(200)]


def test_the_slope_of_points_on_a_line() -> None:
    assert slope([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx(2)


def test_the_table_marks_broken_bounds() -> None:
    lines = table([Row("a", "1", "0", False), Row("b", "0", "0", True), Row("c", "2")]).splitlines()
    assert [line.split(" | ")[-1].strip(" |") for line in lines[2:]] == ["**no**", "yes", ""]
