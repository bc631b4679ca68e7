"""The judge of the soak: what it must not let pass."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.bench.load import Answer, Request
from tests.soak.__main__ import Row, table
from tests.soak.callers import Record, judge
from tests.soak.traffic import Sent, Traffic
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
    ("sent", "got"),
    [
        (Sent("photo", REQUEST, "200", (1,)), answer(1)),
        (Sent("photo", REQUEST, "200", (0,)), answer(0)),
        (Sent("batch", REQUEST, "200", (8, None, 0)), batch(8, None, 0)),
        (Sent("garbage", REQUEST, "400"), Answer(0.1, "400")),
    ],
)
def test_what_was_asked_for_is_right(sent: Sent, got: Answer) -> None:
    record = Record()
    judge(sent, got, record)
    assert record.wrong == []


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (Sent("photo", REQUEST, "200", (1,)), answer(0)),
        (Sent("photo", REQUEST, "200", (1,)), Answer(0.1, "500")),
        (Sent("photo", REQUEST, "200", (1,)), Answer(0.1, "429")),
        (Sent("photo", REQUEST, "200", (1,)), Answer(0.1, "IncompleteReadError")),
        (Sent("batch", REQUEST, "200", (8, None)), batch(None, 8)),
        (Sent("batch", REQUEST, "200", (8, 1)), batch(8)),
        (Sent("garbage", REQUEST, "400"), answer(1)),
    ],
)
def test_any_other_answer_and_none_at_all_are_wrong(sent: Sent, got: Answer) -> None:
    record = Record()
    judge(sent, got, record)
    assert len(record.wrong) == 1


def test_the_mixture_holds_every_kind_and_is_the_same_for_the_same_seed() -> None:
    def first(count: int) -> list[Sent]:
        return list(itertools.islice(Traffic("http://127.0.0.1:1", seed=3), count))

    sent = first(400)
    assert {each.manner for each in sent} == {"whole", "slowly", "cut", "left"}
    assert {each.status for each in sent} == {"200", "400", "415", "422", ""}
    assert [each.kind for each in sent] == [each.kind for each in first(400)]


def test_a_line_through_points() -> None:
    assert slope([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx(2)


def test_the_table_tells_what_was_not_kept() -> None:
    lines = table([Row("a", "1", "0", False), Row("b", "0", "0", True), Row("c", "2")]).splitlines()
    assert [line.split(" | ")[-1].strip(" |") for line in lines[2:]] == ["**no**", "yes", ""]
