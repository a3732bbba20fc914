"""The families of cases that make POWER's matrix: what varies in each, declared as products.

entry    one entry carries every combination of V, L, R, C and its lowest six bits: ATT and the
         encoded access authority of a page, NLS of a directory; the others permit everything
bit      each other bit of one entry is flipped; with some of a page's address there is no memory
place    pages of all sizes are accessed at several places
segment  each bit of an address is flipped that no tree translates
tree     what the process table says of the tree is what it may not be

All are tried with every access, privileged and in problem state, in quadrants 0 and 3; `entry`
under every key 0 of AMR and IAMR.
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
from harness.check.power.matrix.chain import (
    ACCESSES,
    MODES,
    REGION,
    TREES,
    Chain,
    Control,
    Lanes,
)
from harness.check.product import Axis, Product, Value
from harness.paging.bulk import Counts
from harness.paging.memory import Words
from harness.paging.power.access import Kind
from harness.paging.power.cpu import UNTRANSLATED
from harness.paging.power.formats import (
    CHANGE,
    EXECUTE,
    LEAF,
    READ,
    REFERENCE,
    VALID,
    WRITE,
)

PRESETS: Final = ("quick", "full")

Chosen = Mapping[str, npt.NDArray[Any]]
"""The values of each axis, lane by lane."""

LEVELS: Final = 4
TOP_INDEX: Final = 2
_LOW: Final = 0x3F
_ALL: Final = VALID | LEAF | REFERENCE | CHANGE | READ | WRITE | EXECUTE
_BITS: Final = {"V": VALID, "L": LEAF, "R": REFERENCE, "C": CHANGE}

_ACCESS: Final = (Axis("access", ACCESSES), Axis("by", ("privileged", "problem")))
_MARKS: Final = (Axis("R", (0, 1)), Axis("C", (0, 1)))

_KEYS: Final = tuple(Control(amr, iamr) for amr, iamr in every(range(4), range(2)))
_OPEN: Final = (Control(),)
_OFFSETS: Final = (0, 0x10, 0x7F0, 0xFF0, 0x1000, REGION // 2 + 0x20, REGION - 16)


@dataclass(frozen=True)
class Family(Plain):
    """Cases of one mode and quadrant that vary the same things.

    level     of the entry that varies
    product   of the axes that the guest is given; the control state is beside it
    controls  the control states under which each case is tried
    change    what makes of permissive lanes those of the cases
    """

    name: str
    mode: str
    quadrant: int
    level: int
    product: Product
    controls: tuple[Control, ...]
    change: Callable[[Family, Chain, Chosen, Lanes], None]

    @cached_property
    def fixed(self) -> dict[str, Value]:
        """What all cases have in common."""
        where: dict[str, Value] = {"mode": self.mode, "quadrant": self.quadrant}
        return {"family": self.name, **where, "level": self.level}

    def lacks(self, control: Control) -> str | None:
        """None: every processor has these."""
        del control
        return None


def lanes(family: Family, chain: Chain, numbers: Counts) -> Lanes:
    """The cases of a family with these numbers."""
    places = family.product.places(numbers)
    chosen = {axis.name: axis.array.take(places[axis.name]) for axis in family.product.axes}
    made = _permissive(family, chain, chosen)
    family.change(family, chain, chosen, made)
    return made


def _permissive(family: Family, chain: Chain, chosen: Chosen) -> Lanes:
    """Lanes whose path ends in a page at the family's level that permits everything, but for what R
    and C say."""
    n, format = len(chosen["access"]), chain.format
    kind = np.zeros(n, np.uint8)
    for number, name in enumerate(ACCESSES):
        kind[chosen["access"] == name] = number
    there = _there(chain, kind)
    words = np.zeros((LEVELS, n), np.uint64)
    for level in range(1, LEVELS):
        words[level] = format.pointer(chain.tables[level - 1], level, 0)
    leaf = np.full(n, _ALL, np.uint64)
    for name in ("R", "C"):
        if name in chosen:
            leaf &= np.where(chosen[name] == 1, np.uint64(2**64 - 1), ~np.uint64(_BITS[name]))
    words[family.level] = _frame(chain, family.level, there) | leaf
    top = np.uint64(family.quadrant << 62 | TOP_INDEX << 39)
    return Lanes(words, there | top, kind, chosen["by"] == "problem")


def _there(chain: Chain, kind: npt.NDArray[np.uint8]) -> Words:
    """The data, or for fetches the code, that pages lead to: where a smallest page of either size
    can be."""
    return np.where(kind == Kind.FETCH, np.uint64(chain.code), np.uint64(chain.data))


def _frame(chain: Chain, level: int, physical: Words) -> Words:
    """The address in a leaf at a level in whose page `physical` lies."""
    found: Words = physical & ~np.uint64(chain.format.levels[level].size - 1)
    return found


# ---- what each family changes ----


def _entry(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    there, level = _there(chain, into.kind), family.level
    word = chosen["low"].astype(np.uint64)
    for name, bit in _BITS.items():
        word |= np.where(chosen[name] == 1, np.uint64(bit), np.uint64(0))
    address = _frame(chain, level, there)
    if level:
        address = np.where(chosen["L"] == 1, address, np.uint64(chain.tables[level - 1]))
        into.words[0] = _ALL | there
    into.words[level] = address | word


def _bit(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    level, bit = family.level, np.uint64(1) << chosen["bit"].astype(np.uint64)
    if level:
        pointer = np.uint64(chain.format.pointer(chain.tables[level - 1], level, 0))
        points = chosen["points"] == 1
        into.words[level] = np.where(points, pointer, into.words[level])
        page = np.uint64(_ALL) | _there(chain, into.kind)
        into.words[0] = np.where(points, page, into.words[0])
    into.words[level] ^= bit


def _place(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    offset = chosen["offset"].astype(np.uint64)
    into.address[:] += offset
    if not family.level:
        into.words[0] += offset & ~np.uint64(chain.format.levels[0].size - 1)


def _segment(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    into.address[:] ^= np.uint64(1) << chosen["bit"].astype(np.uint64)


def _nothing(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    """Only the control state is another."""


# ---- what is tried ----


def families(preset: str, mode: str) -> Iterator[Family]:
    """What a preset tries in a mode."""
    for quadrant, level in every((0, 3), range(LEVELS)):

        def family(
            name: str,
            axes: tuple[Axis, ...],
            change: Callable[[Family, Chain, Chosen, Lanes], None],
            controls: tuple[Control, ...] = _OPEN,
            quadrant: int = quadrant,
            level: int = level,
        ) -> Family:
            product = Product((*axes, *_ACCESS))
            return Family(name, mode, quadrant, level, product, controls, change)

        entry = (*(Axis(name, (0, 1)) for name in _BITS), Axis("low", tuple(range(_LOW + 1))))
        few = preset == "quick" and quadrant == 3
        yield family("entry", entry, _entry, _OPEN if few else _KEYS)
        leaves, pointers = _other_bits(mode, level)
        yield family("bit", (Axis("bit", leaves), Axis("points", (0,)), *_MARKS), _bit)
        if level:
            yield family("bit", (Axis("bit", pointers), Axis("points", (1,))), _bit)
        if level < LEVELS - 1:
            yield family("place", (Axis("offset", _OFFSETS), *_MARKS), _place)
        if not level:
            bits = tuple(bit for bit in range(64) if UNTRANSLATED >> bit & 1)
            yield family("segment", (Axis("bit", bits), *_MARKS), _segment)
            bad = tuple(Control(tree=tree) for tree in TREES if tree != "none" or not quadrant)
            yield family("tree", _MARKS, _nothing, bad)


def _other_bits(mode: str, level: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The bits of a page and of a directory that `entry` does not vary: without those of addresses
    that lead to other memory, which has no marks, and of directories to none, which is a
    machine check."""
    shift = (MODES[mode], 21, 30, 39)[level]
    leaves = (6, 9, 10, 11, *range(12, shift), *range(max(shift, 30), 62))
    return leaves, (*range(6, 12), 60, 61)
