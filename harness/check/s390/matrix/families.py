"""The families of cases that make s390's matrix: what varies in each, declared as products.

entry    one entry carries every combination of its lowest bits, while the others permit everything
bounds   TF and TL of an entry, with the index below in each quarter
root     the index of the root in each quarter, with TL of the ASCE
wide     each bit of an address above those that the root's table serves
nowhere  each bit of an entry's address that leads to where no memory is
rights   P in every combination of entries, and IEP of the page
low      addresses about those that low-address protection is about
place    places in a page
two      the bits that matter of an entry and of the one below it together

All are tried with every access in problem and in supervisor state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product as every
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.check.matrix import Plain
from harness.check.product import Axis, Product, Value
from harness.check.s390.matrix.chain import ACCESSES, FRAME, NOWHERE, Chain, Control, Lanes
from harness.machine.s390.processor import MachineInfo
from harness.paging.bulk import Counts
from harness.paging.memory import Words
from harness.paging.s390.cpu import PARTS, Mode
from harness.paging.s390.formats import (
    COMMON,
    INVALID,
    LENGTH,
    NO_EXECUTE,
    PAGE_INVALID,
    PROTECT,
)

PRESETS: Final = ("quick", "full")

Chosen = Mapping[str, npt.NDArray[Any]]
"""The values of each axis, lane by lane."""

Change = Callable[["Family", Chain, Chosen, Lanes], None]

INDEX: Final = (0xA5, 0x2A5, 0x4C3, 0x2B1, 0x39A)
"""Which entry of each table cases use, from level 0 up, but where an axis says another."""

QUARTER: Final = 512
"""Entries of a quarter of a table, but for page tables, which are whole."""

_ACCESS: Final = (Axis("access", tuple(ACCESSES)), Axis("by", ("supervisor", "problem")))
_FLAG: Final = (0, 1)
_QUARTERS: Final = tuple(range(PARTS))


@dataclass(frozen=True)
class Family(Plain):
    """Cases of one mode that vary the same things.

    info      the processor that is asked
    level     of the entry that varies
    product   of the axes that the guest is given; the control state is beside it
    controls  the control states under which each case is tried
    change    what makes of permissive lanes those of the cases
    """

    name: str
    mode: str
    info: MachineInfo
    level: int
    product: Product
    controls: tuple[Control, ...]
    change: Change

    @cached_property
    def fixed(self) -> dict[str, Value]:
        """What all cases have in common."""
        return {"family": self.name, "mode": self.mode, "level": self.level}

    def lacks(self, control: Control) -> str | None:
        return control.lacks(self.info)


def lanes(family: Family, chain: Chain, numbers: Counts) -> Lanes:
    """The cases of a family with these numbers."""
    places = family.product.places(numbers)
    chosen = {axis.name: axis.array.take(places[axis.name]) for axis in family.product.axes}
    made = permissive(chain, chosen)
    family.change(family, chain, chosen, made)
    return made


def permissive(chain: Chain, chosen: Chosen) -> Lanes:
    """Lanes whose path ends in a page that permits everything."""
    n = len(chosen["access"])
    kind = np.zeros(n, np.uint8)
    for name, number in ACCESSES.items():
        kind[chosen["access"] == name] = number
    words = np.zeros((chain.levels, n), np.uint64)
    for level in range(1, chain.levels):
        words[level] = pointer_to(chain, level)
    address = sum(INDEX[level] << shift_of(level) for level in range(chain.levels))
    made = Lanes(words, np.full(n, address, np.uint64), kind, chosen["by"] == "problem")
    words[0] = np.where(made.fetch, np.uint64(chain.code), np.uint64(chain.data))
    return made


def shift_of(level: int) -> int:
    """log2 of what an entry spans."""
    return (12, 20, 31, 42, 53)[level]


def pointer_to(chain: Chain, level: int) -> int:
    """The entry at a level that leads to all of the table below."""
    type_and_length = (level - 1) << 2 | LENGTH if level > 1 else 0
    return chain.tables[level - 1] | type_and_length


def _moved(into: Lanes, level: int, quarter: Words) -> None:
    """Has addresses use the entry of a table in another quarter."""
    shift = np.uint64(shift_of(level))
    index = np.uint64(INDEX[level] % QUARTER) + quarter.astype(np.uint64) * np.uint64(QUARTER)
    into.address[:] &= ~(np.uint64(PARTS * QUARTER - 1) << shift)
    into.address[:] |= index << shift


# ---- what each family changes ----


def _entry(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    low = chosen["low"].astype(np.uint64)
    kept = into.words[family.level] & ~np.uint64(FRAME - 1)
    into.words[family.level] = kept | low


def _bounds(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    first, last = (chosen[name].astype(np.uint64) for name in ("TF", "TL"))
    kept = into.words[family.level] & ~np.uint64(LENGTH)
    into.words[family.level] = kept | first << np.uint64(6) | last
    _protected(chosen["P"], family.level, into)
    _moved(into, family.level - 1, chosen["quarter"])
    into.words[family.level - 1] |= np.where(chosen["invalid"] == 1, np.uint64(INVALID), 0)


def _root(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    _moved(into, family.level, chosen["quarter"])
    into.words[family.level] |= np.where(chosen["invalid"] == 1, np.uint64(INVALID), 0)


def _wide(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    into.address[:] |= np.uint64(1) << chosen["bit"].astype(np.uint64)


def _nowhere(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    into.words[family.level] |= np.uint64(1) << chosen["bit"].astype(np.uint64)
    _protected(chosen["P"], family.level, into)


def _rights(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    for level in range(chain.levels):
        _protected(chosen[f"P{level}"], level, into)
    into.words[0] |= np.where(chosen["IEP"] == 1, np.uint64(NO_EXECUTE), 0)


def _protected(chosen: npt.NDArray[Any], level: int, into: Lanes) -> None:
    into.words[level] |= np.where(chosen == 1, np.uint64(PROTECT), np.uint64(0))


def _low(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    into.address[:] = chosen["address"].astype(np.uint64)
    into.words[0] |= np.where(chosen["invalid"] == 1, np.uint64(PAGE_INVALID), 0)
    _protected(chosen["P"], 0, into)


def _place(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    into.address[:] += chosen["offset"].astype(np.uint64)


def _two(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    for level, name in ((family.level, "upper"), (family.level - 1, "lower")):
        into.words[level] ^= chosen[name].astype(np.uint64)


# ---- what is tried ----

_PLACES: Final = (0, 0x10, 0x7F0, 0x800, 0xFF0)
_LOW: Final = (0, 0x10, 0x1F0, 0x200, 0xFF0, 0x1000, 0x11F0, 0x1200, 0x1FF0, 0x2000)


def families(preset: str, mode: str, info: MachineInfo) -> Iterator[Family]:
    """What a preset tries in a mode."""
    top, width = Mode(mode).level, Mode(mode).address_bits
    plain = tuple(Control(private, iep=iep) for private, iep in every((False, True), repeat=2))
    both = (Control(), Control(edat=True))
    parts = tuple(
        Control(private, quarters + 1) for private in (False, True) for quarters in _QUARTERS
    )
    low = tuple(Control(private, lap=lap) for private, lap in every((False, True), repeat=2))

    def family(
        name: str, level: int, axes: tuple[Axis, ...], change: Change, *controls: Control
    ) -> Family:
        product = Product((*axes, *_ACCESS))
        return Family(name, mode, info, level, product, controls, change)

    protect, invalid = Axis("P", _FLAG), Axis("invalid", _FLAG)
    for level in range(top + 1):
        yield family("entry", level, (Axis("low", tuple(range(FRAME)), "#x"),), _entry, *plain)
        yield family("nowhere", level, (Axis("bit", tuple(NOWHERE)), protect), _nowhere, *both)
        if level > 1:
            axes = (Axis("TF", _QUARTERS), Axis("TL", _QUARTERS), Axis("quarter", _QUARTERS))
            yield family("bounds", level, (*axes, protect, invalid), _bounds, *both)
        if level and preset == "full":
            both_entries = (
                Axis("upper", _together(level), "#x"),
                Axis("lower", _together(level - 1), "#x"),
            )
            yield family("two", level, both_entries, _two, *plain)
    yield family("root", top, (Axis("quarter", _QUARTERS), invalid), _root, *parts)
    rights = (*(Axis(f"P{level}", _FLAG) for level in range(top + 1)), Axis("IEP", _FLAG))
    edat = tuple(Control(iep=iep, edat=edat) for iep, edat in every((False, True), repeat=2))
    yield family("rights", 0, rights, _rights, *edat)
    yield family("low", 0, (Axis("address", _LOW, "#x"), invalid, protect), _low, *low)
    yield family("place", 0, (Axis("offset", _PLACES, "#x"),), _place, *both)
    if width < 64:
        yield family("wide", top, (Axis("bit", tuple(range(width, 64))),), _wide, *parts)


def _together(level: int) -> tuple[int, ...]:
    """Every combination of the bits of an entry that matter."""
    bits: tuple[int, ...]
    if level == 0:
        bits = (PAGE_INVALID, 0x800, PROTECT, NO_EXECUTE)
    elif level == 1:
        bits = (INVALID, COMMON, PROTECT, 4, 8, 0x800)
    else:
        bits = (INVALID, COMMON, PROTECT, 4, 8, 1, 2, 0x40, 0x80)
    return tuple(sum(some) for some in every(*((0, bit) for bit in bits)))
