"""`make reference`: writes the generated pages and documents."""

from __future__ import annotations

from tests.docs.reference.pages import GENERATED

if __name__ == "__main__":
    for file, generate in GENERATED.items():
        file.write_text(generate(), encoding="utf-8")
