"""The families of cases that make RISC-V's matrix: what varies in each, declared as products.

entry      one entry carries every combination of its lower eight bits, while the others permit
           everything
reserved   one entry, a page or a pointer, carries each bit from 54 up, and some together
superpage  a page at a level above 0 has each bit of its page number set that must be clear
napot      N with every value of the lowest four bits of a page number
span       each 4K of a 64K page
canonical  each bit of an address above those translated, and the highest of these, is flipped
nowhere    a table, or a page, is where no memory is
place      pages of all sizes are accessed at several places

All are tried with every access, by S-mode and U-mode and by machine mode with MPRV as either, under
SUM and MXR, with U, A and D of the page, and with ADUE.
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
from harness.check.product import Axis, Product, Rule, Value
from harness.check.riscv.matrix.chain import ACCESSES, NONE_MISSING, NOWHERE, REGION, Chain, Lanes
from harness.check.riscv.matrix.hart import Control, Hart
from harness.paging.bulk import Bytes, Counts
from harness.paging.memory import Mask, Words
from harness.paging.riscv.formats import PAGE_BITS, A, D, G, N, R, U, V, W, X

PRESETS: Final = ("quick", "full")

Chosen = Mapping[str, npt.NDArray[Any]]
"""The values of each axis, lane by lane."""

_BITS: Final = {"V": V, "R": R, "W": W, "X": X, "U": U, "G": G, "A": A, "D": D}
_TOP_INDEX: Final = 2
"""The entry of the root by which all addresses lead."""


def _flags(names: str) -> tuple[Axis, ...]:
    return tuple(Axis(name, (0, 1)) for name in names)


_ACCESS: Final = (
    Axis("access", ACCESSES),
    Axis("by", ("supervisor", "user")),
    *(Axis(name, (0, 1)) for name in ("sum", "mxr", "mprv")),
)
_RULES: Final = (
    Rule(
        "MPRV is not for fetches",
        lambda values: (values["access"] == "fetch") & (values["mprv"] == 1),
    ),
)


@dataclass(frozen=True)
class Family(Plain):
    """Cases of one hart that vary the same things.

    level     of the entry that varies
    product   of the axes that the guest is given; the control state is beside it
    controls  the control states under which each case is tried
    change    what makes of permissive lanes those of the cases
    """

    name: str
    hart: Hart
    level: int
    product: Product
    controls: tuple[Control, ...]
    change: Callable[[Family, Chain, Chosen, Lanes], None]

    @cached_property
    def fixed(self) -> dict[str, Value]:
        """What all cases have in common."""
        return {"family": self.name, **self.hart.values(), "level": self.level}

    def lacks(self, control: Control) -> str | None:
        return control.lacks(self.hart)


def lanes(family: Family, chain: Chain, numbers: Counts) -> Lanes:
    """The cases of a family with these numbers."""
    places = family.product.places(numbers)
    chosen = {axis.name: axis.array.take(places[axis.name]) for axis in family.product.axes}
    made = permissive(family, chain, chosen)
    family.change(family, chain, chosen, made)
    return made


def permissive(family: Family, chain: Chain, chosen: Chosen) -> Lanes:
    """Lanes whose path ends in a page at the family's level that permits everything, but for what
    W, U, A and D say, to whoever makes the access."""
    n = len(chosen["access"])
    user = chosen["by"] == "user"
    access = _index_of(chosen["access"])
    there = np.where(
        access == ACCESSES.index("fetch"), np.uint64(chain.code), np.uint64(chain.data)
    )
    words = np.zeros((family.hart.levels, n), np.uint64)
    for level in range(1, family.hart.levels):
        words[level] = pointer_to(chain.tables[level - 1])
    words[family.level] = frame(chain, family.level, there) | _leaf_bits(chosen, user)
    return Lanes(
        words=words,
        missing=np.full(n, NONE_MISSING, np.uint8),
        address=address_of(chain, there),
        access=access,
        user=user,
        sum=chosen["sum"] == 1,
        mxr=chosen["mxr"] == 1,
        mprv=chosen["mprv"] == 1,
    )


def _index_of(access: npt.NDArray[Any]) -> Bytes:
    found = np.zeros(len(access), np.uint8)
    for number, name in enumerate(ACCESSES):
        found[access == name] = number
    return found


def _leaf_bits(chosen: Chosen, user: Mask) -> Words:
    """V, R and X; W, U, A and D as the axes have them, or so that they permit everything."""
    bits = np.full(len(user), V | R | X, np.uint64)
    bits |= np.where(chosen["U"] == 1 if "U" in chosen else user, np.uint64(U), np.uint64(0))
    for name, bit in (("W", W), ("A", A), ("D", D)):
        there = chosen[name] == 1 if name in chosen else np.ones(len(user), np.bool_)
        bits |= np.where(there, np.uint64(bit), np.uint64(0))
    return bits


def pointer_to(table: int) -> int:
    """The entry that leads to a table."""
    return table >> 2 | V


def frame(chain: Chain, level: int, physical: Words) -> Words:
    """The address in a leaf at a level in whose page `physical` lies."""
    size = np.uint64(chain.format.levels[level].size)
    found: Words = (physical & ~(size - np.uint64(1))) >> np.uint64(2)
    return found


def address_of(chain: Chain, physical: Words) -> Words:
    """The address that leads to a physical one by pages of any size."""
    top = chain.format.levels[-1]
    found: Words = physical & np.uint64(top.size - 1) | np.uint64(_TOP_INDEX << top.shift)
    return found


# ---- what each family changes ----


def _entry(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    word = np.zeros(len(into), np.uint64)
    for name, bit in _BITS.items():
        word |= np.where(chosen[name] == 1, np.uint64(bit), np.uint64(0))
    leaf = into.words[family.level] & ~np.uint64(0x3FF)
    if family.level:
        points = word & np.uint64(R | W | X) == 0
        below = np.uint64(pointer_to(chain.tables[family.level - 1]) & ~V)
        leaf = np.where(points, below, leaf)
        _page_below(family, chain, into)
    into.words[family.level] = leaf | word


def _page_below(family: Family, chain: Chain, into: Lanes) -> None:
    """A page at level 0 for walks that go on, which permits everything."""
    there = np.where(
        into.access == ACCESSES.index("fetch"), np.uint64(chain.code), np.uint64(chain.data)
    )
    user = np.where(into.user, np.uint64(U), np.uint64(0))
    into.words[0] = frame(chain, 0, there) | np.uint64(V | R | W | X | A | D) | user


def _reserved(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    high = _together(chosen["set"])
    if family.level:
        points = chosen["points"] == 1
        marks = np.zeros(len(into), np.uint64)
        for name in "UAD":
            marks |= np.where(chosen[name] == 1, np.uint64(_BITS[name]), np.uint64(0))
        pointer = np.uint64(pointer_to(chain.tables[family.level - 1])) | marks
        _page_below(family, chain, into)
        into.words[family.level] = np.where(points, pointer, into.words[family.level])
    else:
        napot = np.where(high & np.uint64(N) != 0, np.uint64(8 << 10), np.uint64(0))
        into.words[0] |= napot
    into.words[family.level] |= high


def _together(sets: npt.NDArray[Any]) -> Words:
    """The bits that the values of the axis `set` stand for."""
    masks = {str(one): _mask(str(one)) for one in np.unique(sets).tolist()}
    found = np.zeros(len(sets), np.uint64)
    for one, mask in masks.items():
        found[sets == one] = mask
    return found


def _mask(together: str) -> int:
    return 0 if together == "none" else sum(1 << int(bit) for bit in together.split("+"))


def _superpage(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    into.words[family.level] |= _together(chosen["set"])


def _napot(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    number = chosen["ppn"].astype(np.uint64) << np.uint64(10)
    into.words[family.level] |= number
    into.words[family.level] |= np.where(chosen["N"] == 1, np.uint64(N), np.uint64(0))
    into.address[:] += chosen["vpn"].astype(np.uint64) << np.uint64(PAGE_BITS)


def _canonical(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    upper = np.uint64((1 << 64) - (1 << chain.format.levels[-1].shift + 8))
    into.address[:] |= np.where(chosen["half"] == "upper", upper, np.uint64(0))
    into.address[:] ^= _together(chosen["set"])


def _nowhere(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    beyond = np.uint64(1) << (chosen["beyond"].astype(np.uint64) - np.uint64(2))
    table = chosen["table"] == 1
    if family.level:
        pointer = np.uint64(pointer_to(chain.tables[family.level - 1]))
        into.words[family.level] = np.where(table, pointer, into.words[family.level])
        into.missing[table] = family.level - 1
    into.words[family.level] |= beyond


def _place(family: Family, chain: Chain, chosen: Chosen, into: Lanes) -> None:
    offset = chosen["offset"].astype(np.uint64)
    into.address[:] += offset
    if not family.level:
        into.words[0] += offset >> np.uint64(PAGE_BITS) << np.uint64(10)


# ---- what is tried ----


def _sets(bits: range, more: tuple[str, ...] = ()) -> Axis:
    return Axis("set", ("none", *map(str, bits), *more))


_RESERVED_SETS: Final = ("54+60", "59+60", "61+62", "54+63", "61+63", "61+62+63", "60+61")
_OFFSETS: Final = (0, 0x10, 0x7F0, 0xFF0, 0x1000, REGION // 2 + 0x20, REGION - 16)


def families(preset: str, hart: Hart) -> Iterator[Family]:
    """What a preset tries of a hart."""
    marks = (*_flags("UAD"), *_ACCESS)
    ppns, vpns = tuple(range(16)), tuple(range(16))
    wide = hart.xlen == 64
    plain, masking = _controls(hart, (hart.pbmte,)), _controls(hart, (hart.pbmte,), masks=True)

    def family(
        name: str,
        level: int,
        axes: tuple[Axis, ...],
        change: Callable[[Family, Chain, Chosen, Lanes], None],
        controls: tuple[Control, ...] = plain,
    ) -> Family:
        return Family(name, hart, level, Product(axes, _RULES), controls, change)

    for level in range(hart.levels):
        yield family("entry", level, (*_flags("VRWXUGAD"), *_ACCESS), _entry)
        yield family("place", level, (Axis("offset", _OFFSETS), *marks), _place)
        tables = Axis("table", (0, 1) if level else (0,))
        beyond = Axis("beyond", NOWHERE[hart.xlen])
        yield family("nowhere", level, (tables, beyond, *_flags("W"), *marks), _nowhere)
        if level:
            index_bits = 9 if wide else 10
            axis = _sets(range(10, 10 + index_bits * level))
            yield family("superpage", level, (axis, *marks), _superpage)
        if wide:
            points = Axis("points", (0, 1) if level else (0,))
            sets = _sets(range(54, 64), _RESERVED_SETS)
            both = _controls(hart, (False, True))
            yield family("reserved", level, (sets, points, *marks), _reserved, both)
            some = (0, 9) if level == 0 and preset == "quick" else vpns if level == 0 else (0,)
            axes = (*_flags("N"), Axis("ppn", ppns if level == 0 else (0, 8)), Axis("vpn", some))
            yield family("napot", level, (*axes, *marks), _napot)
    if wide:
        span = (Axis("N", (1,)), Axis("ppn", (8,)), Axis("vpn", vpns))
        yield family("span", 0, (*span, *marks), _napot)
        width = hart.cpu(Control(), 0).mode.address_bits
        flips = (_sets(range(width - 1, 64)), Axis("half", ("lower", "upper")))
        yield family("canonical", 0, (*flips, *marks), _canonical, masking)


def reserved_alone(preset: str, hart: Hart) -> Iterator[Family]:
    """Of these, what varies bits that extensions use: all that a hart without them differs in."""
    return (one for one in families(preset, hart) if one.name in ("reserved", "napot", "span"))


def _controls(hart: Hart, pbmte: tuple[bool, ...], masks: bool = False) -> tuple[Control, ...]:
    """Every control state of these; those that a hart cannot be in are skipped where all is
    planned."""
    pmm = ((0, 0), (2, 3), (3, 2)) if masks else ((0, 0),)
    states = every((False, True), pbmte, pmm)
    return tuple(Control(adue, types, *masked) for adue, types, masked in states)
