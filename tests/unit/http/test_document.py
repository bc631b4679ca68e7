"""The OpenAPI document: which operations need a key, and what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.http.app import create_app
from service.settings import Settings
from tests.fake_engine import fake_engines

KEYS: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]
PREDICT, ADMIN, OPEN = "/v1/emotions", "/metrics", "/livez"


@pytest.mark.parametrize(
    ("options", "predict", "admin"),
    [
        ({"keys_file": True}, KEYS, KEYS),
        ({"keys_file": True, "allow_anonymous": True}, [*KEYS, {}], KEYS),
        ({"keys_file": True, "admin_port": 8001}, KEYS, None),
        ({}, [*KEYS, {}], [*KEYS, {}]),
    ],
    ids=["keys", "anonymous", "admin port", "no keys"],
)
def test_keys_are_required_optional_or_absent(
    tmp_path: Path, options: dict[str, Any], predict: object, admin: object
) -> None:
    if "keys_file" in options:
        options = options | {"keys_file": tmp_path / "keys.toml"}
        add_key(options["keys_file"], "one", [Scope.PREDICT], None, None)
    document = create_app(Settings(**options), fake_engines()).openapi()
    assert document["components"]["securitySchemes"].keys() == {"bearer", "header"}
    for path, expected in ((PREDICT, predict), (ADMIN, admin), (OPEN, None)):
        (operation,) = document["paths"][path].values()
        assert operation.get("security") == expected
        assert ({"401", "403"} <= operation["responses"].keys()) == (expected is not None)


def test_no_operation_has_a_generated_name() -> None:
    document = create_app(Settings(), fake_engines()).openapi()
    for operations in document["paths"].values():
        for method, operation in operations.items():
            # Names that FastAPI generates end with the method.
            assert not operation["operationId"].endswith(f"_{method}")
