"""Conditions on the pages of a space: `w and x and not user`, `size=4K and type=UC`.

The language is that of `check.where`; this module says which names there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.check import where
from harness.check.keys import LETTERS, in_units
from harness.check.layouts import described
from harness.inspect import architecture
from harness.inspect.architecture import Types
from harness.inspect.graph import RowKind, Rows, with_lasting
from harness.inspect.ranges import Chosen
from harness.inspect.snapshot import QuestionError
from harness.paging.bulk import Bytes, granted_by
from harness.paging.format import Format, Level
from harness.paging.memory import Mask, Words
from harness.paging.processor import Cpu

EXAMPLE: Final = "w and x and not user"
"""A condition on pages."""

KINDS: Final = {
    RowKind.PAGE: "page",
    RowKind.MALFORMED: "malformed",
    RowKind.UNBACKED: "unbacked",
    RowKind.SELF_MAP: "self-map",
    RowKind.UNREAD: "unread",
}
"""What kinds of rows are called."""

_Column = Callable[[Rows], npt.NDArray[Any]]


def condition(cpu: Cpu, types: Types, text: str) -> Chosen:
    """Reads a condition on rows; QuestionError where it is none.

    Names with the values 0 and 1, which may stand alone: the effective rights of a page
    (`architecture.effective`), in full and by their first letters, and with CR0.WP=0 writing too,
    which the supervisor then does everywhere; with `granted-` before them those that all entries
    give together, and with `own-` those that the page's entry gives; A, D and other
    single bits of a page's entry, of which one that makes pages global may be a pointer's;
    `shared`, of what is at several addresses because tables are.  Others: level, size, kind, type,
    and the fields of an entry (`KEY=3`).  A row that is no page has the rights of its way, and no
    bits.
    """
    columns, axes = _columns(cpu, types)
    try:
        former = described(cpu.architecture).former
        holds = where.read(text, axes, EXAMPLE, former).holds
    except ValueError as error:
        raise QuestionError(str(error)) from None

    def chosen(_: Format, rows: Rows) -> Mask:
        found = holds(_Values(columns, rows))
        return np.broadcast_to(np.asarray(found, np.bool_), rows.virtual.shape)

    return chosen


class _Values(Mapping[str, npt.NDArray[Any]]):
    """Rows as the values of axes, computed as they are asked for."""

    def __init__(self, columns: Mapping[str, _Column], rows: Rows):
        self._columns, self._rows = columns, rows

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._columns[name](self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _columns(cpu: Cpu, types: Types) -> tuple[dict[str, _Column], where.Axes]:
    """Every name, how rows have it, and the values it can have."""
    format, kept = cpu.format, architecture.of(cpu).never_withheld(cpu)
    columns: dict[str, _Column] = {}
    axes: dict[str, frozenset[int | str]] = {}

    def add(name: str, column: _Column, values: Iterator[int | str] | range | list[str]) -> None:
        columns[name], axes[name] = column, frozenset(values)

    for right, bit in format.rights.items():
        if bit:
            for name in (right.replace(" ", "-"), LETTERS[right]):
                add(name, _always if bit & kept else _effective(cpu, bit), range(2))
                add(f"granted-{name}", _granted(bit), range(2))
                add(f"own-{name}", _own(format, bit), range(2))
    for name, bit in (("A", format.accessed), ("D", format.dirty)):
        add(name, _bit(dict.fromkeys(range(len(format.levels)), bit), format), range(2))
    for name, masks in _fields(format).items():
        width = max(mask.bit_count() for mask in masks.values())
        add(name, _bit(masks, format), range(1 << width))
    sizes = [in_units(level.size) for level in format.levels]
    numbers = [format.number(level) for level in range(len(format.levels))]
    add("level", lambda rows: np.array(numbers[rows.level]), iter(numbers))
    add("size", lambda rows: np.array(sizes[rows.level]), sizes)
    add("kind", lambda rows: _KIND_NAMES[rows.kind], list(KINDS.values()))
    index = architecture.of(cpu).memory_types.index
    add("type", lambda rows: _type(index, format, types, rows), sorted(set(types)))
    add("shared", lambda rows: rows.paths > 1, range(2))
    return columns, axes


_KIND_NAMES = np.array([KINDS.get(RowKind(n), "") if n in KINDS else "" for n in range(256)])


def _granted(bit: int) -> _Column:
    return lambda rows: rows.granted & np.uint64(bit) != 0


def _effective(cpu: Cpu, bit: int) -> _Column:
    def effective(rows: Rows) -> Mask:
        pages = rows.kind == RowKind.PAGE
        given = rows.granted.copy()  # of what is no page, that of its way
        given[pages] = architecture.effective(cpu, rows.granted[pages], rows.raw[pages])
        found: Mask = given & np.uint64(bit) != 0
        return found

    return effective


def _always(rows: Rows) -> Mask:
    return np.ones(len(rows.virtual), np.bool_)


def _own(format: Format, bit: int) -> _Column:
    def own(rows: Rows) -> Mask:
        given = granted_by(format, rows.level, np.uint64(bit), rows.raw) != 0
        found: Mask = given & (rows.kind == RowKind.PAGE)
        return found

    return own


def _bit(masks: Mapping[int, int], format: Format) -> _Column:
    """A field of pages, by the mask that it has at each level; 0 of all else.  What makes pages
    lasting counts where a pointer on the way has it, too."""

    def field(rows: Rows) -> npt.NDArray[Any]:
        mask = masks.get(rows.level, 0)
        raw = with_lasting(format, rows.raw, rows.lasting)
        value = (raw & np.uint64(mask)) >> np.uint64((mask & -mask).bit_length() - 1 if mask else 0)
        return np.where(rows.kind == RowKind.PAGE, value, np.uint64(0))

    return field


def _type(
    index: Callable[[Level, Words], Bytes], format: Format, types: Types, rows: Rows
) -> npt.NDArray[Any]:
    """The memory type of pages, "" of all else."""
    named = np.array(types)[index(format.levels[rows.level], rows.raw)]
    return np.where(rows.kind == RowKind.PAGE, named, "")


def fields(format: Format, level: int) -> dict[str, int]:
    """The named bits of a page at a level that are neither its presence, its rights, its use nor
    what makes it a page."""
    here = format.levels[level]
    taken = format.rights_mask | format.accessed | format.dirty | here.presence
    taken |= here.telling if here.pointer is not None else 0
    pages = {name: mask for shape in here.pages for name, mask in shape.bits.items()}
    return {name: mask for name, mask in pages.items() if not mask & taken}


def _fields(format: Format) -> dict[str, dict[int, int]]:
    """The same of all levels of pages, by name."""
    found: dict[str, dict[int, int]] = {}
    for level in format.page_levels():
        for name, mask in fields(format, level).items():
            found.setdefault(name, {})[level] = mask
    return found
