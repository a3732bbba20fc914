"""JSON files of a known form: every value has its type before anything is done with it.

msgspec holds the text against a class: strictly, so that true is no number, 8.0 no whole one, and a
key that the class does not have is none.  It takes 10 ms to import, so this module is imported
where there is such a file to read.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, TypeVar

import msgspec

from harness.check.keys import instead

T = TypeVar("T")


class Number(int):
    """A number that is written as text, since JSON has none of more than 53 bits for everyone:
    `"0x1000"`, or in another base that Python reads."""


def decode(content: bytes, form: Any) -> Any:
    """The value of this form in the text of a file; ValueError, a sentence, where it holds none.

    form  a class of msgspec, or several that a tag tells apart
    """
    try:
        return msgspec.json.decode(content, type=form, dec_hook=_read)
    except msgspec.ValidationError as error:
        raise ValueError(_sentence(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None


def made(kind: type[T], values: dict[str, object], where: str) -> T:
    """The dataclass of these values, of which any may be left out that has a default."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"{where}: there is no {key!r} here: {instead(key, known)}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}.{_sentence(str(error))}") from None


def _read(_: type[Number], value: object) -> Number:
    if not isinstance(value, str):
        raise ValueError(f"Expected text like '0x1000', got {type(value).__name__}")
    try:
        return Number(value, 0)
    except ValueError:
        raise ValueError("Expected text like '0x1000', got other text") from None


def _sentence(error: str) -> str:
    """What msgspec says, with the place first: "access.user: expected bool, got int"."""
    what, _, place = error.replace("`", "").partition(" - at $")
    what = what[0].lower() + re.sub(r"\bstr\b", "text", what[1:])
    return f"{place.lstrip('.')}: {what}" if place else what
