"""docs/openapi.json, for client generators and for reviews of API changes."""

from __future__ import annotations

import json
from typing import Any

from service.http.app import create_app
from service.settings import Settings
from tests.docs.blocks import ROOT
from tests.fake_engine import fake_engines

FILE = ROOT / "docs" / "openapi.json"


def document() -> dict[str, Any]:
    """The document that a gateway with default settings serves. It needs no loaded model."""
    return create_app(Settings(), fake_engines()).openapi()


def as_text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
