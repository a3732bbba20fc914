"""Sentences that people read are in the order of English, in messages and in documents."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = "harness", "guest", "images", "tests"
READ = [
    *sorted((ROOT / "harness").rglob("*.py")),
    *sorted(ROOT.glob("*.md")),
    *sorted(path for name in PARTS for path in (ROOT / name).rglob("*.md")),
]

# What comes of translating word by word, and how it is said instead.
INSTEAD = {
    r"\b(?:says|has|holds) shows\b": "`COMMAND` shows what it says",
    r"\bnone that (?:this|is known|tables give|is canonical)\b": "no ..., or none is known",
    r"\bthat there may not be\b": "that is not supported",
    r"\b(?:is|are), the (?:text|source|entry|table)s? tells?\b": "the text tells whose it is",
    r"\bhas but its\b": "has only its",
    r"\btells? (?:not )?by whom\b": "says who made it",
    r"\bof it is no (?:frame|page|table)\b": "there is no ...",
}


@cache
def joined(path: Path) -> str:
    """A text in which strings of several lines are one."""
    return re.sub(r'"\s+f?"', "", path.read_text())


@pytest.mark.parametrize("odd", INSTEAD)
def test_no_sentence_is_in_the_order_of_another_language(odd: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r}, write: {INSTEAD[odd]}"
        for path in READ
        for match in re.finditer(odd, joined(path))
    ]
    assert not found, "\n".join(found)
