"""What is shown holds no character that a terminal obeys."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from harness.report.visible import visible, visible_lines

EVERY = "".join(map(chr, range(sys.maxunicode + 1)))
KINDS = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of which nothing is shown as it is: controls, surrogates, ends of lines."""
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Bidirectional classes of characters that turn the direction of others."""


def obeyed(text: str) -> set[str]:
    return {
        one
        for one in text
        if unicodedata.category(one) in KINDS or unicodedata.bidirectional(one) in TURNS
    }


def test_no_character_that_a_terminal_obeys_is_left() -> None:
    assert len(obeyed(EVERY)) > 2000
    assert obeyed(visible(EVERY)) == set()
    assert obeyed(visible_lines(EVERY)) == {"\n"}
    visible(EVERY).encode()


@pytest.mark.parametrize("text", ["", "linux-5", "Übersicht, 日本", "a\\b", "'\"<>&"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == visible_lines(text) == text


def test_an_escape_says_which_character_it_was() -> None:
    assert visible("a\x1b[2J\nb\udcff") == "a\\x1b[2J\\nb\\udcff"
    assert visible_lines("a\x1b[2J\nb") == "a\\x1b[2J\nb"
