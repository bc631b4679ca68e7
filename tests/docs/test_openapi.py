"""docs/openapi.json is what a gateway serves."""

from __future__ import annotations

import httpx

from tests.docs.openapi import FILE, as_text, document
from tests.system.conftest import Process


def test_the_file_is_the_document_that_is_served(service: Process) -> None:
    served = httpx.get(f"{service.url}/openapi.json").json()
    assert as_text(served) == FILE.read_text(encoding="utf-8"), "run `make openapi`"


def test_the_file_is_what_make_openapi_writes() -> None:
    assert as_text(document()) == FILE.read_text(encoding="utf-8"), "run `make openapi`"
