"""The generated pages and documents are as `make reference` writes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.openapi import document
from tests.docs.reference.pages import GENERATED


@pytest.mark.parametrize("file", GENERATED, ids=lambda file: file.name)
def test_a_generated_file_is_up_to_date(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == GENERATED[file](), "run `make reference`"


def test_every_schema_of_the_api_has_a_section() -> None:
    pages = "".join(GENERATED[file]() for file in GENERATED if file.name in ("fields.md", "manifest.md"))
    described = set(re.findall(r"^### (\w+)$", pages, flags=re.MULTILINE))
    # Aliases are described where they are used. `Card` and `ModelList` only consist of described models.
    assert document()["components"]["schemas"].keys() - described == {
        "Card",
        "ModelList",
        "Probabilities",
        "ProblemCode",
        "Reason",
    }
