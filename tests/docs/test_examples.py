"""`make examples` writes current answers. It keeps answers that differ only in times and ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.examples import refreshed

JSON = "```sh\necho '{}'\n```\n\n```json\n{}\n```\n"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (JSON.format('{"a": 2, "b": [1]}', '{"a": 1}'), '{\n  "a": 2,\n  "b": [1]\n}'),
        (
            JSON.format('{"faces": [{"a": 0.5, "b": 1}]}', '{\n  "a": 0.25\n}'),
            '{\n  "a": 0.5\n}',
        ),
        (
            JSON.format('{"request_id": "22", "png": "xyzefg"}', '{"request_id": "11", "png": "abc..."}'),
            '{\n  "request_id": "11",\n  "png": "xyz..."\n}',
        ),
        ("```sh\necho two 2\n```\n\n```\none 1\n```\n", "two 2"),
        ("- ```sh\n  echo two 2\n  ```\n\n  ```\n  one\n  1\n  ```\n", "  two 2"),
        ("```sh\necho a,b\necho 1,2\necho 3,4\n```\n\n```csv\na,c\n0,0\n```\n", "a,b\n1,2"),
        ("```console\n$ echo one 1\none 2\n\n$ echo two\n2\n```\n", "$ echo one 1\none 1\n\n$ echo two\ntwo"),
        (
            "```sh\nprintf 'HTTP/1.1 200 OK\\r\\nB: 1\\r\\n\\r\\n'\n```\n\n```\nHTTP/1.1 200 OK\nA: 1\n```\n",
            "HTTP/1.1 200 OK\nB: 1",
        ),
    ],
)
def test_a_different_answer_is_written(page: str, expected: str, tmp_path: Path) -> None:
    text, failures = refreshed(page, tmp_path, 0)
    assert failures == []
    assert text.endswith(f"\n{expected}\n{' ' * (len(expected) - len(expected.lstrip()))}```\n")
    (tmp_path / "again").mkdir()
    assert refreshed(text, tmp_path / "again", 0) == (text, [])


@pytest.mark.parametrize(
    "page",
    [
        JSON.format('{"request_id": "2", "a": 0.50001}', '{"a": 0.5, "request_id": "1"}'),
        JSON.format('{"png": "abcdefg"}', '{"png": "abc..."}'),
        "```sh\necho took 12.5 s\n```\n\n```\ntook  0.3 s\n```\n",
        "```sh\necho one; echo two\n```\n\n```\no...\n```\n",
        "```sh\necho one\n```\n\n<!-- not compared: chance -->\n```\ntwo\n```\n",
        "```sh\necho x\n```\n\n## Another\n\n```\ny\n```\n",
        "```sh\nprintf 'HTTP/1.1 200 OK\\nA: 2\\n\\n'\n```\n\n```\nHTTP/1.1 200 OK\nA: 1\n```\n",
    ],
)
def test_an_equal_answer_is_kept(page: str, tmp_path: Path) -> None:
    assert refreshed(page, tmp_path, 0) == (page, [])


def test_a_block_that_fails_is_reported_and_kept(tmp_path: Path) -> None:
    page = "```sh\nfalse\n```\n\n```\none\n```\n"
    text, (failure,) = refreshed(page, tmp_path, 0)
    assert text == page
    assert "line 1: it ended with exit code 1" in failure
