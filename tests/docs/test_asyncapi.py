"""The examples of docs/asyncapi.json, and the messages of a real stream, match its schemas."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from service.settings import Settings
from tests.conftest import Gateway, serving
from tests.docs import asyncapi
from tests.fake_engine import fake_engines
from tests.unit.http.routes.test_stream import END, ask, opened

DOCUMENT = asyncapi.document()


def check(name: str, message: Any) -> None:
    """Checks that a message is valid, and has no field that the schema does not name."""
    document = copy.deepcopy(DOCUMENT)
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    payload = document["components"]["messages"][name]["payload"]
    jsonschema.Draft202012Validator(document | payload).validate(message)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with serving(Settings(port=0), fake_engines()) as served:
        yield served


def test_every_message_of_a_stream_is_as_described(
    gateway: Gateway, astronaut_jpeg: bytes, faceless_jpeg: bytes
) -> None:
    with opened(gateway, "?include=landmarks,quality,experts,engagement") as stream:
        faces = ask(stream, astronaut_jpeg)
        check("answer", faces)
        assert {"smoothed", "quality", "experts", "engagement"} <= faces["faces"][0].keys()
        check("answer", ask(stream, faceless_jpeg))
        check("problem", ask(stream, b"no picture"))
        check("problem", ask(stream, "no message"))
        summary = ask(stream, END)
        check("summary", summary)
        assert summary["tracks"]


@pytest.mark.parametrize("name", [*asyncapi.SENT, "end"])
def test_the_examples_are_valid(name: str) -> None:
    (example,) = DOCUMENT["components"]["messages"][name]["examples"]
    check(name, example["payload"])


def test_a_message_of_another_type_is_invalid() -> None:
    (example,) = DOCUMENT["components"]["messages"]["answer"]["examples"]
    with pytest.raises(jsonschema.ValidationError):
        check("summary", example["payload"])
    with pytest.raises(jsonschema.ValidationError):
        check("answer", example["payload"] | {"colour": "red"})
