"""docs/reference/stream.md agrees with the code of streams."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from service.api.stream import FrameAnswer, FrameProblem, GroupFrameAnswer, StreamSummary
from service.http.routes import stream
from service.http.transport.sockets import PIECES
from service.tracking.record import MAX_TRACKS
from service.tracking.tracks import FRAMES_LOST, LOST_S, MIN_OVERLAP
from tests.unit.test_docs import ROOT, json_blocks, section

PAGE = (ROOT / "docs" / "reference" / "stream.md").read_text(encoding="utf-8")
MESSAGES: dict[str, type[BaseModel]] = {
    "### An answer": FrameAnswer,
    "### A problem": FrameProblem,
    "### The summary": StreamSummary,
    "### Groups": GroupFrameAnswer,
}
NUMERALS = {5: "five"}


@pytest.mark.parametrize("heading", MESSAGES)
def test_the_example_of_a_message_is_a_valid_message(heading: str) -> None:
    (block,) = json_blocks(section(PAGE, heading))
    example = json.loads(block)
    assert MESSAGES[heading].model_validate(example).model_dump(mode="json", exclude_none=True) == example


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    for code in (stream.ENDED, stream.GOING_AWAY, stream.POLICY, stream.IDLE):
        assert f"| {code} |" in section(PAGE, "### Close codes")
    assert f"more than {PIECES} pieces" in PAGE
    assert f"at least {LOST_S:g} s" in PAGE
    assert f"{NUMERALS[FRAMES_LOST]} times" in PAGE
    assert f"at least {MIN_OVERLAP:g}" in PAGE
    assert f"the last {MAX_TRACKS} faces" in PAGE
    assert stream.SUBPROTOCOL in PAGE
