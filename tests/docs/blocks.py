"""Every fenced block of the documentation, with the comments before it that say how it is to be tried.

| comment on the line before a block | meaning |
| --- | --- |
| `<!-- not run: WHY -->` | It is only checked for its syntax, and for the commands that it names. |
| `<!-- not compared: WHY -->` | It shows an answer that differs from run to run. |
| `<!-- file: NAME -->` | It is written to this file, for the blocks after it. |
| `<!-- serves: PORT -->` | It runs until the end of the page; the port becomes a free one, here and after. |
| `<!-- with: EXPRESSNET_X=Y ... -->` | It asks a service of its own, with these settings. |
| `<!-- times: N -->` | It is run so often; the last answer counts. |
| `<!-- exit: N -->` | It ends with this exit code. |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
MARKS = {"not run", "not compared", "file", "serves", "with", "times", "exit"}

_COMMENT = re.compile(r"<!--\s*([a-z ]+?)(?::\s*(.*?))?\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is that of its first fence, `marks` what the comments before it say."""

    line: int
    language: str
    text: str
    section: str = ""
    marks: dict[str, str] = field(default_factory=dict)


def blocks_of(page: str) -> Iterator[Block]:
    """In the order of the page. Raises `ValueError` for a comment before a block that means nothing."""
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
                    raise ValueError(f"line {line}: a block's comment says `{name}: {value}`")
            yield Block(line, (token.info.split() or [""])[0].lower(), token.content, section, marks)
        marks = {}
