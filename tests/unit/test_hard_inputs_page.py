"""Each test that docs/notes/hard-inputs.md names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "notes" / "hard-inputs.md").read_text(encoding="utf-8")


def test_every_row_names_a_test_that_exists() -> None:
    rows = [row for row in PAGE.splitlines() if row.startswith("| ") and not row.startswith("| **")][2:]
    for row in rows:
        name = re.search(r"\| `([\w/]+\.py)::(\w+)` \|$", row)
        assert name, row
        code = (ROOT / "tests" / name[1]).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {name[2]}\(", code, re.MULTILINE), row
