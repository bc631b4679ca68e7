"""Writes the parts of generated pages in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *filter(None, parts)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. A pipe in a cell is escaped, because it would end the cell."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullet_list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def codes(values: Iterable[object]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def plain(docstring: str | None) -> str:
    """The paragraphs of a docstring, each on one line."""
    paragraphs = (docstring or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
