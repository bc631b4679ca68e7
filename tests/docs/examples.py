"""`make examples`: writes the current answers and outputs of the commands to the pages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests.docs.blocks import PAGES, ROOT, Block, blocks_of
from tests.docs.page import Failed, Page, missing_programs
from tests.system.conftest import running


def refreshed(text: str, folder: Path, port: int) -> tuple[str, list[str]]:
    """The page with the current answers, and the failures of its blocks."""
    page, failures = Page(folder, port, refresh=True), []
    blocks = list(blocks_of(text))
    try:
        for block in blocks:
            try:
                page.try_block(block)
            except Failed as failed:
                failures.append(f"line {block.line}: {failed}")
    finally:
        page.close()
    return _rewritten(text, blocks, page.answers), failures


def _rewritten(text: str, blocks: list[Block], answers: Mapping[int, str]) -> str:
    lines = text.splitlines(keepends=True)
    # Blocks are replaced from the last to the first, because a new block changes the lines after it.
    for block in reversed([block for block in blocks if block.line in answers]):
        answer = answers[block.line]
        fence = lines[block.line - 1]
        indent = fence[: len(fence) - len(fence.lstrip())]
        new = [f"{indent}{line}" if line.strip() else line for line in answer.splitlines(keepends=True)]
        lines[block.line : block.line + len(block.text.splitlines())] = new
    return "".join(lines)


def main(names: list[str]) -> int:
    """The number of blocks that failed."""
    failed = 0
    pages = [Path(name).resolve() for name in names] or PAGES
    with running(model_repository=ROOT / "model_repository") as served:
        for file in pages:
            text = file.read_text(encoding="utf-8")
            if missing := missing_programs(list(blocks_of(text))):
                print(f"{file}: skipped; not installed: {', '.join(missing)}")
                continue
            with TemporaryDirectory() as folder:
                new, failures = refreshed(text, Path(folder), urlsplit(served.url).port or 0)
            for failure in failures:
                print(f"{file}: {failure}")
            if new != text:
                file.write_text(new, encoding="utf-8")
                print(f"{file}: written")
            failed += len(failures)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
