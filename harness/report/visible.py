"""Text that comes from elsewhere, as it may be shown.

Titles, names of files, what a guest prints and what a monitor answers can hold characters that a
terminal obeys: they move the cursor, clear the screen, turn the direction of writing. They are
shown as escapes, as Python writes them, and so are halves of surrogate pairs, which stand for bytes
of names that are no UTF-8 and cannot be printed at all. XML has no place for most of them either.
"""

from __future__ import annotations

import re
from typing import Final

_DIRECTION: Final = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_OTHERS: Final = f"\x7f-\x9f{_DIRECTION}\ud800-\udfff\ufeff\ufffe\uffff"
_HIDDEN: Final = re.compile(f"[\x00-\x1f{_OTHERS}]")
_HIDDEN_IN_LINES: Final = re.compile(f"[\x00-\x09\x0b-\x1f{_OTHERS}]")


def visible(text: str) -> str:
    """A name, a title or a sentence: one line."""
    return _HIDDEN.sub(_escape, text)


def visible_lines(text: str) -> str:
    """The same of text that may have several lines."""
    return _HIDDEN_IN_LINES.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]  # Python escapes what cannot be printed
