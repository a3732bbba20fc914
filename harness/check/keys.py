"""The keys of layouts: what the value of each must look like.  `layouts` says what they mean."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

RIGHTS = {"w": "write", "u": "user", "x": "execute"}
"""What the letters of rights stand for."""

LETTERS = {
    **{right: letter for letter, right in RIGHTS.items()},
    **{"read": "r", "user execute": "x", "supervisor execute": "k"},
}
"""The letters of all rights that formats have: of one in which who is it that executes matters, x
is the user's and k the supervisor's."""

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
"""What the letters of sizes stand for, in bytes."""


def in_units(size: int) -> str:
    """A size as a layout gives it, in the largest unit that needs no fraction."""
    unit, scale = max(
        ((unit, scale) for unit, scale in UNITS.items() if size % scale == 0),
        key=lambda pair: pair[1],
    )
    return f"{size // scale}{unit}"


def instead(name: object, known: Iterable[str]) -> str:
    """What may have been meant by a name that there is not: those that are alike, or else all."""
    names = list(known)
    if alike := get_close_matches(str(name), names):
        return f"did you mean {' or '.join(alike)}?"
    return f"choose one of {', '.join(names)}"


Reader = Callable[[object], object]
"""What makes of a value in a file what it stands for; ValueError where it is none."""


def values_of(
    table: object,
    known: Collection[str],
    required: Iterable[str],
    readers: Mapping[str, Reader] | None = None,
) -> dict[str, Any]:
    """What the keys of a table say, by key; read as everywhere, or by other `readers`."""
    if not isinstance(table, dict):
        raise ValueError("this is no table")
    for key in table:
        if key not in known:
            raise ValueError(f"there is no key {key!r} here: {instead(key, known)}")
    for key in required:
        if key not in table:
            raise ValueError(f"{key} is missing")
    values, readers = dict[str, Any](), {**READERS, **(readers or {})}
    for key, value in table.items():
        try:
            values[key] = readers[key](value)
        except ValueError as error:
            raise ValueError(f"{key} is {reprlib.repr(value)}, {error}") from None
    return values


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no string")
    return value


def flag(value: object) -> bool:
    """A value that is true or false."""
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def number(value: object) -> int:
    """A whole number from 0 up."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a whole number from 0 up")
    return value


def _positive(value: object) -> int:
    if not number(value):
        raise ValueError("but must be more")
    return number(value)


def _distance(value: object) -> int:
    """Bytes."""
    if not isinstance(value, str):
        return number(value)
    match = re.fullmatch(r"([0-9]+)([KMGT]?)", value, re.ASCII)
    if not match:
        raise ValueError("not a size: write it like 4K, 2M or 1G")
    return int(match[1]) * UNITS[match[2]]


def _size(value: object) -> int:
    """Bytes, at least 1."""
    return _positive(_distance(value))


def _physical(value: object) -> int | str:
    if value in ("any", "random"):
        return str(value)
    if isinstance(value, str):
        raise ValueError("neither a number nor any nor random")
    return number(value)


def rights_in(letters: Mapping[str, str]) -> Reader:
    """Reads rights by their letters."""

    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, str) or not set(value) <= set(letters):
            raise ValueError(f"not made of the letters {', '.join(letters)} alone")
        return tuple(letters[letter] for letter in value)

    return read


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("not a list of strings")
    return tuple(value)


def names_in(former: Mapping[str, str]) -> Reader:
    """Reads names, of which some had others before."""
    return lambda value: tuple(former.get(name, name) for name in _names(value))


def _level_counts(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("not a list of numbers of levels")
    counts = tuple(number(item) for item in value)
    if len(set(counts)) < len(counts):
        raise ValueError("which names one twice")
    return counts


READERS: Mapping[str, Reader] = {
    "title": _text,
    "arch": _text,
    "levels": _level_counts,
    "ram": _size,
    "tables": _size,
    "root": flag,
    "virtual": number,
    "size": _size,
    "count": _positive,
    "step": _size,
    "physical": _physical,
    "physical_step": _distance,
    "seed": number,
    "rights": rights_in(RIGHTS),
    "bits": _names,
    "table_rights": rights_in(RIGHTS),
    "level": number,
    "like": number,
    "value": number,
}
"""How to read the value of each key; it means the same wherever it may stand."""
