"""`make check`: checks the prose of the pages against docs/words.toml, but not code and quotations."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markdown_it import MarkdownIt

from tests.docs.blocks import PAGES, ROOT

FILE = "docs/words.toml"
RULES: dict[str, Any] = tomllib.loads((ROOT / FILE).read_text(encoding="utf-8"))

_END = re.compile(r"""(?<!e\.g\.)(?<!i\.e\.)(?<!Art\.)(?<!No\.)(?<=[.!?])["')\]]*\s+(?=["'(\[]*[A-Z0-9`])""")


@dataclass(frozen=True)
class Text:
    """A paragraph, list item, heading or cell of a table, with the line at which it begins."""

    line: int
    is_prose: bool
    content: str

    @property
    def sentences(self) -> list[list[str]]:
        """The words of each sentence. Headings and cells have no sentences."""
        split = [re.findall(r"\S*[^\W_]\S*", sentence) for sentence in _END.split(self.content)]
        return [words for words in split if words] if self.is_prose else []


def texts(page: str) -> Iterator[Text]:
    inside: list[str] = []
    line = 1
    for token in MarkdownIt("commonmark").enable("table").parse(page):
        line = token.map[0] + 1 if token.map else line
        if token.nesting == 1:
            inside.append(token.tag)
        elif token.nesting == -1:
            inside.pop()
        elif token.type == "inline" and "blockquote" not in inside:
            # Inline code counts as one word.
            replacements = {"code_inline": "`code`", "softbreak": " ", "hardbreak": " "}
            parts = [
                part.content if part.type == "text" else replacements.get(part.type, "")
                for part in token.children or []
            ]
            yield Text(line, inside[-1] == "p", "".join(parts))


def faults(page: str, rules: dict[str, Any] = RULES) -> list[str]:
    """The faults of a page. Each begins with its line number and a colon."""
    limits, instead = rules["limits"], rules["instead"]
    found = []
    lengths = []
    for text in texts(page):
        for words in text.sentences:
            lengths.append(len(words))
            if len(words) > limits["words_in_a_sentence"]:
                found.append(f"{text.line}: a sentence has {len(words)} words: {' '.join(words[:8])} ...")
        for pattern, better in instead.items():
            for match in re.finditer(rf"\b(?:{pattern})\b", text.content, flags=re.IGNORECASE):
                found.append(f"{text.line}: not {match[0]!r}, but: {better}")
    if sum(lengths) > limits["words"]:
        found.append(f"1: the page has {sum(lengths)} words")
    if lengths and fmean(lengths) > limits["mean_words_in_a_sentence"]:
        found.append(f"1: its sentences have {fmean(lengths):.1f} words in the mean")
    return found


def check(pages: dict[str, str], rules: dict[str, Any] = RULES) -> list[str]:
    """The faults of all pages. pages: the text of each page, by its path."""
    unfinished = set(rules["unfinished"])
    found = {name: faults(text, rules) for name, text in pages.items()}
    done = sorted(name for name in unfinished if not found.get(name))
    return [f"{name}:{fault}" for name in found if name not in unfinished for fault in found[name]] + [
        f"{FILE}: {name} is done or missing: take it off the list" for name in done
    ]


if __name__ == "__main__":
    read = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
    sys.exit("\n".join(check(read)) or 0)
