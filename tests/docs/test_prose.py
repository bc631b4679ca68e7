"""The prose linter finds what docs/words.toml forbids. It ignores code and quotations."""

from __future__ import annotations

import pytest

from tests.docs.prose import FILE, check, faults, texts

RULES = {
    "unfinished": ["docs/old.md"],
    "limits": {"words": 12, "words_in_a_sentence": 6, "mean_words_in_a_sentence": 5},
    "instead": {"mend(s|ed)?": "fix"},
}


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("# One\n\nTwo.", []),
        (
            "one two three four\nfive six seven",
            ["1: a sentence has 7 words: one two three four five six seven ..."],
        ),
        ("Short.\n\n- It was Mended.", ["3: not 'Mended', but: fix"]),
        ("# Mend it", ["1: not 'Mend', but: fix"]),
        ("| a | b |\n| --- | --- |\n| one | mends |", ["3: not 'mends', but: fix"]),
        ("A b c d e f. A b c d e f.", ["1: its sentences have 6.0 words in the mean"]),
        ("A b c.\n\n" * 5, ["1: the page has 15 words"]),
        ("> mend one two three four five six seven\n\n```\nmend\n```\n\n`mend` amend mending", []),
        ("| a b c d e f g h |\n| --- |\n| a b c d e f g h |", []),
    ],
)
def test_the_faults_of_a_page(page: str, found: list[str]) -> None:
    actual = faults(page, RULES)
    assert [fault for fault in actual if "mean" not in fault or len(actual) == 1] == found


@pytest.mark.parametrize(
    ("page", "lengths"),
    [
        ("One two. Three (four five.) Six?", [2, 3, 1]),
        ("See e.g. One of Art. 5 in v1.2 now.", [9]),
        ("Run `make it so. Now`, [two words](x.md) ![no words](y.png) - end.", [5]),
        ("- one two\n- three", [2, 1]),
        ("It ends. `Code` begins.", [2, 2]),
    ],
)
def test_the_words_of_sentences(page: str, lengths: list[int]) -> None:
    assert [len(words) for text in texts(page) for words in text.sentences] == lengths


def test_an_unfinished_page_is_excused_until_it_has_no_faults() -> None:
    fault = "Mend."
    assert check({"docs/old.md": fault, "docs/new.md": fault}, RULES) == [
        "docs/new.md:1: not 'Mend', but: fix"
    ]
    assert check({"docs/old.md": "Fix."}, RULES) == [
        f"{FILE}: docs/old.md is done or missing: take it off the list"
    ]
    assert check({}, RULES) == check({"docs/old.md": "Fix."}, RULES)
