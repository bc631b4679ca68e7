"""The tables in docs/explanation/architecture.md agree with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from service.http.app import create_app
from service.settings import Settings
from tests.fake_engine import fake_engines

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")


def test_the_rooms_are_the_layers_of_the_import_rule() -> None:
    rule = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = rule["contracts"][0]["layers"]
    expected = {
        (level, room) for level, layer in enumerate(reversed(layers), start=1) for room in layer.split(" | ")
    }
    found = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted((int(level), room) for level, room in found) == sorted(expected)


def test_the_layers_are_in_the_order_of_the_stack(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.touch(mode=0o600)
    settings = Settings(
        keys_file=keys,
        admin_port=9000,
        cors_origins=("https://example.org",),
        audit_file=tmp_path / "audit.jsonl",
    )
    stack = [
        layer.cls.__module__.rpartition(".")[2]
        for layer in create_app(settings, fake_engines()).user_middleware
    ]
    _, _, section = PAGE.partition("\n## Layers\n")
    rows = re.findall(
        r"^\| [\w ]+ \| (?:`(\w+)\.py`|Starlette's own) \|", section.partition("\n## ")[0], flags=re.MULTILINE
    )
    assert [name or "cors" for name in rows] == stack
