"""Reads the fenced blocks of the documentation, and the comments that say how the tests use a block.

| comment on the line before a block | meaning |
| --- | --- |
| `<!-- not run: WHY -->` | Only its syntax is checked, and that its commands exist. |
| `<!-- not compared: WHY -->` | Its answer differs from run to run. |
| `<!-- file: NAME -->` | It is written to this file, for later blocks. |
| `<!-- serves: PORT -->` | It runs until the end of the page. From here on, a free port replaces this port. |
| `<!-- with: EXPRESSNET_X=Y ... -->` | It uses a service of its own with these settings. |
| `<!-- times: N -->` | It runs N times. The last answer counts. |
| `<!-- exit: N -->` | It ends with this exit code. |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [page for pattern in ("*.md", "docs/**/*.md", "examples/*.md") for page in sorted(ROOT.glob(pattern))]
MARKS = {"not run", "not compared", "file", "serves", "with", "times", "exit"}

_COMMENT = re.compile(r"<!--\s*([a-z ]+?)(?::\s*(.*?))?\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is the line of its first fence. `marks` has the comments before it."""

    line: int
    language: str
    text: str
    section: str = ""
    marks: dict[str, str] = field(default_factory=dict)


def blocks_of(page: str) -> Iterator[Block]:
    """The blocks in the order of the page. Raises `ValueError` for a comment without a meaning."""
    section = ""
    marks: dict[str, str] = {}
    tokens = MarkdownIt("commonmark").parse(page)
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open":
            section = following.content if following else ""
        if token.type == "html_block":
            marks |= {name: value or "" for name, value in _COMMENT.findall(token.content)}
            continue
        if token.type == "fence":
            line = (token.map or [0])[0] + 1
            for name, value in marks.items():
                if name not in MARKS or not value:
                    raise ValueError(f"line {line}: the comment `{name}: {value}` has no meaning")
            yield Block(line, (token.info.split() or [""])[0].lower(), token.content, section, marks)
        marks = {}
