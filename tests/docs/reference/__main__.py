"""`make reference`: the generated pages and documents, after what they describe changed."""

from __future__ import annotations

from tests.docs.reference.pages import GENERATED

if __name__ == "__main__":
    for file, made in GENERATED.items():
        file.write_text(made(), encoding="utf-8")
