"""Every code block of the documentation is run, compared or parsed. A block that cannot run says why."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.blocks import PAGES, Block, blocks_of
from tests.docs.page import Failed, Page, missing_programs
from tests.docs.syntax import SHELL
from tests.system.conftest import Process


def outcomes(blocks: list[Block], folder: Path, port: int) -> tuple[list[str], list[str]]:
    """The outcome of every block, and a message for each failure."""
    page, done, failures = Page(folder, port), [], []
    try:
        for block in blocks:
            try:
                done.append(page.try_block(block))
            except Failed as failed:
                done.append("failed")
                failures.append(f"line {block.line}: {failed}")
    finally:
        page.close()
    return done, failures


def pages_with_blocks() -> list[Path]:
    return [page for page in PAGES if list(blocks_of(page.read_text(encoding="utf-8")))]


# A page starts many processes, one after the other.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", pages_with_blocks(), ids=lambda page: page.name)
def test_the_blocks_do_what_the_page_says(page: Path, service: Process, tmp_path: Path) -> None:
    blocks = list(blocks_of(page.read_text(encoding="utf-8")))
    if missing := missing_programs(blocks):
        pytest.skip(f"not installed: {', '.join(missing)}")
    done, failures = outcomes(blocks, tmp_path, urlsplit(service.url).port or 0)
    assert not failures, "\n\n".join(failures)
    for block, outcome in zip(blocks, done, strict=True):
        if block.language in SHELL and not block.marks.keys() & {"not run", "file"}:
            assert outcome == "ran", f"line {block.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_is_overlooked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert 2 * len(list(blocks_of(text))) == len(re.findall(r"^ *(?:```|~~~)", text, flags=re.MULTILINE))


def test_most_commands_are_run() -> None:
    """A comment that excuses a command is an exception. This test fails if exceptions become the rule."""
    blocks = [block for page in PAGES for block in blocks_of(page.read_text(encoding="utf-8"))]
    commands = [block for block in blocks if block.language in SHELL]
    excused = [block for block in commands if "not run" in block.marks]
    assert 2 * len(excused) < len(commands)


ECHO = "```sh\necho '{}'\n```\n\n"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```sh\nfalse\n```", "exit code 1"),
        ("```sh\nif\n```", "cannot be read"),
        ("```sh\nmake bread\n```", "no bread"),
        ("<!-- not run: too long -->\n```sh\nexpressnet train --dataa x\n```", "no --dataa"),
        ("<!-- not run: too long -->\n```sh\nA=1 expressnet bake\n```", "no bake"),
        ("```brainfuck\n+\n```", "nothing here reads"),
        ("```python\nassert False\n```", "AssertionError"),
        ("```python\nif\n```", "cannot be read"),
        ("```json\n{\n```", "cannot be read"),
        (ECHO.format('{"a": [1, {"b": "c"}]}') + '```json\n{"a": [2, {"b": "d"}]}\n```', "is 'c'"),
        (ECHO.format('{"a": [1]}') + '```json\n{"a": []}\n```', "has 1 items"),
        (ECHO.format('{"a": 1}') + '```json\n{"b": 1}\n```', "has ['a']"),
        (ECHO.format('{"a": 1}') + '```json\n{"a": true}\n```', "is 1"),
        (ECHO.format("text") + "```json\n{}\n```", "no JSON came"),
        (ECHO.format("one 1") + "```\ntwo 2\n```", "the output is"),
        (ECHO.format("a,b") + "```csv\na,c\n1,2\n```", "the columns are"),
        (ECHO.format("HTTP/1.1 200 OK") + "```http\nHTTP/1.1 404 Not Found\n```", "the head is"),
        ("```console\n$ echo one\ntwo\n```", "the output is"),
        ("<!-- serves: 8001 -->\n```sh\necho gone\n```", "nothing listens"),
    ],
)
def test_a_wrong_page_fails(page: str, message: str, tmp_path: Path) -> None:
    done, failures = outcomes(list(blocks_of(page)), tmp_path, 0)
    assert done[-1] == "failed"
    assert message in failures[0]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (ECHO.format('{"a": [1, {"b": "c"}]}') + '```json\n{"a": [2, {"b": "c"}]}\n```', ["ran", "compared"]),
        (ECHO.format('{"faces": [{"a": 1, "b": 2}]}') + '```json\n{"b": 3}\n```', ["ran", "compared"]),
        (ECHO.format('{"png": "iVBORw0"}') + '```json\n{"png": "iVBO..."}\n```', ["ran", "compared"]),
        (
            ECHO.format("one") + "<!-- not compared: chance -->\n```\ntwo\n```\n\n```\nthree\n```",
            ["ran", "read", "read"],
        ),
        (ECHO.format("took 12.5 s") + "```\ntook  0.3 s\n```", ["ran", "compared"]),
        (ECHO.format("x") + "## Another\n\n```json\n{}\n```", ["ran", "read"]),
        ("```console\n$ echo one\none\n$ echo two\ntwo\n```", ["ran"]),
        (
            "```sh\nmkdir there\ncd there\nwho=me\n```\n\n```sh\ntest $who = me\ntest -d ../there\n```",
            ["ran", "ran"],
        ),
        (
            "<!-- file: a.py -->\n```python\nprint(8000)\n```\n\n```sh\npython a.py\n```\n\n```\n8000\n```",
            ["written", "ran", "compared"],
        ),
        ("<!-- not run: takes long -->\n```sh\nfalse\n```", ["read"]),
        ("<!-- exit: 3 -->\n```sh\nexit 3\n```", ["ran"]),
        # A block does not inherit the port of the block before.
        ("```sh\nexport EXPRESSNET_PORT=1\n```\n\n```sh\ntest $EXPRESSNET_PORT != 1\n```", ["ran", "ran"]),
        ("<!-- exit: 2 -->\n```sh\nEXPRESSNET_PORT=x expressnet serve\n```", ["ran"]),
        ("<!-- times: 2 -->\n```sh\necho x >> log\ncat log\n```\n\n```\nx\nx\n```", ["ran", "compared"]),
    ],
)
def test_a_right_page_passes(page: str, expected: list[str], tmp_path: Path) -> None:
    done, failures = outcomes(list(blocks_of(page)), tmp_path, 0)
    assert (done, failures) == (expected, [])


@pytest.mark.parametrize("comment", ["not run", "not run:", "skip: it fails"])
def test_a_comment_without_a_meaning_is_an_error(comment: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(blocks_of(f"<!-- {comment} -->\n```sh\nfalse\n```"))
