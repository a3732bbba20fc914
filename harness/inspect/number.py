"""Numbers as people type them and as tools print them: addresses, entries, registers, error codes.

Kernels, debuggers and emulators print these in hexadecimal and mostly without 0x; people also
write small ones in decimal.  What can only be meant in one way is read in that way; what could be
meant in two is asked about.
"""

from __future__ import annotations

import re
from typing import Final

WIDTH: Final = 64
"""Bits of the largest number."""

_DIGITS: Final = WIDTH // 4
"""Hexadecimal digits that such a number has at most; one of just as many is printed in full."""

_PREFIXED: Final = re.compile(r"0[xX][0-9a-fA-F]+|0[oO][0-7]+")
_BARE: Final = re.compile(r"[0-9a-fA-F]+")
_BINARY: Final = re.compile(r"0[bB][01]+")
_BETWEEN: Final = re.compile(r"(?<=[0-9a-fA-FxXoO])[_`](?=[0-9a-fA-F])")
"""What may stand between digits: an underscore, or WinDbg's grave accent."""


def read(what: str, text: str, *, bare: int | None = None) -> int:
    """The number that the text is; ValueError, a sentence that names `what`, where it is none of 64
    bits or could be meant in two ways.

    Hexadecimal is what begins with 0x or with a zero, has a letter, has 16 digits, or is written
    with a grave accent.

    bare  the base of everything without a prefix: 16, or 10 of what is counted; None asks
    """
    word = _BETWEEN.sub("", text.strip())
    if len(word) > WIDTH + len("0b"):
        raise ValueError(f"{what} has {len(word):,} digits, which is no number of {WIDTH} bits")
    if bare == 10 and word.isascii() and word.isdecimal():
        value = int(word)
    elif bare != 10 and _BARE.fullmatch(word):
        if bare is None and "`" not in text and _ambiguous(word):
            raise ValueError(_question(what, text, word))
        value = int(word, 16)
    elif _PREFIXED.fullmatch(word):
        value = int(word, 0)
    else:
        like = "12" if bare == 10 else "0x1000"
        raise ValueError(f"{what} is {text!r}, no number: write it like {like}")
    if value >> WIDTH:
        raise ValueError(f"{what} is {text}, which is no number of {WIDTH} bits")
    return value


def _ambiguous(word: str) -> bool:
    """Whether hexadecimal digits without a prefix could be meant in another base."""
    if _BINARY.fullmatch(word):
        return True
    return word.isdecimal() and len(word) > 1 and word[0] != "0" and len(word) != _DIGITS


def _question(what: str, text: str, word: str) -> str:
    other, base = (int(word, 2), "binary") if _BINARY.fullmatch(word) else (int(word), "decimal")
    if other >> WIDTH:
        return f"{what} is {text}, which is no number of {WIDTH} bits"
    if len(word) > _DIGITS:
        return f"{what} is {text}, too long for hexadecimal: write {other:#x} if that is {base}"
    return f"{what} is {text}: write 0x{word}, or {other:#x} if that is {base}"
