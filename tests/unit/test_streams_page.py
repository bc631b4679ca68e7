"""docs/reference/stream.md says what a stream does."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from pydantic import BaseModel

from service.api.schemas import EmotionQuery, Face, ImageSize
from service.api.stream import FrameAnswer, FrameProblem, StreamQuery, StreamSummary
from service.http.routes import stream
from service.http.transport.sockets import PIECES
from service.tracking.record import MAX_TRACKS
from service.tracking.tracks import LOST_S, MIN_OVERLAP
from tests.unit.test_docs import ROOT, described, json_blocks, paths, rows_of, section

PAGE = (ROOT / "docs" / "reference" / "stream.md").read_text(encoding="utf-8")
MESSAGES: dict[str, type[BaseModel]] = {
    "### An answer": FrameAnswer,
    "### A problem": FrameProblem,
    "### The summary": StreamSummary,
}


@pytest.mark.parametrize("heading", MESSAGES)
def test_every_field_of_a_message_is_described_and_no_other(heading: str) -> None:
    of_a_photo = {*paths(Face, "faces[]."), *paths(ImageSize, "image.")}
    fields = set(paths(MESSAGES[heading])) - of_a_photo
    found = described(section(PAGE, heading)) - {"image"}
    assert found == fields


@pytest.mark.parametrize("heading", MESSAGES)
def test_the_example_of_a_message_is_one(heading: str) -> None:
    (block,) = json_blocks(section(PAGE, heading))
    example = json.loads(block)
    assert MESSAGES[heading].model_validate(example).model_dump(mode="json", exclude_none=True) == example


@pytest.mark.parametrize("name", sorted(StreamQuery.model_fields.keys() - EmotionQuery.model_fields.keys()))
def test_every_parameter_of_its_own_is_described(name: str) -> None:
    field = StreamQuery.model_fields[name]
    ((_, _, default, limits, meaning),) = rows_of(section(PAGE, "## Opening"), name)
    assert default == f"`{field.default}`"
    bounds = {type(limit).__name__: limit for limit in field.metadata}
    choices = ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    assert limits == (f"{bounds['Ge'].ge} to {bounds['Le'].le}" if bounds else choices)
    assert meaning


def test_the_numbers_of_the_page_are_the_codes() -> None:
    for code in (stream.ENDED, stream.GOING_AWAY, stream.POLICY, stream.IDLE):
        assert f"| {code} |" in section(PAGE, "### Close codes")
    assert f"more than {PIECES} pieces" in PAGE
    assert f"not seen for {LOST_S:g} s" in PAGE
    assert f"at least {MIN_OVERLAP:g}" in PAGE
    assert f"the last {MAX_TRACKS} faces" in PAGE
    assert stream.SUBPROTOCOL in PAGE
