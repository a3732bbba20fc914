"""The families of cases that make the matrix: what varies in each, declared as products.

entry   one entry carries every combination of its bits while the others permit everything
bits    one entry carries every single bit, and every pair, that no other axis names
pair    two entries carry what decides precedence, and what combines to rights
rights  every entry carries every combination of rights
place   every size of page is accessed at every edge and at random, at its first, a middle,
        its last word, and its last byte.  What straddles two pages is left out: the order
        in which its halves are checked is the processor's own
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations, product
from operator import or_
from typing import Final

import numpy as np

from harness.check import marks
from harness.check.chain import Chain, Lanes
from harness.check.product import Axis, Product, Rule, Value, Values
from harness.check.stage import Control, Model
from harness.machine.ram import LARGEST_RAM
from harness.paging.bulk import Counts
from harness.paging.memory import Mask, Words
from harness.paging.x86 import formats
from harness.paging.x86.access import Kind
from harness.paging.x86.cpu import canonical_halves

PRESETS: Final = ("quick", "full")

WINDOW_SLOT: Final = 170
"""The slot of the top table that is the window's."""

RANDOM_ADDRESSES: Final = 64


ALL_ON: Final = Control()
ALL_OFF: Final = Control(False, False, False, False)
ONE_OFF: Final = (
    ALL_ON,
    Control(wp=False),
    Control(nxe=False),
    Control(smep=False),
    Control(smap=False),
    ALL_OFF,
)
EVERY_CONTROL: Final = tuple(Control(*bits) for bits in product((True, False), repeat=4))


@dataclass(frozen=True)
class Family:
    """Cases of one model that vary the same entries.

    varied    the levels whose entries vary, with the prefix of their axes' names
    product   of the axes that the guest is given; the control state is beside it
    controls  the control states under which each case is tried
    """

    name: str
    model: Model
    varied: Mapping[int, str]
    product: Product
    controls: tuple[Control, ...]

    @cached_property
    def fixed(self) -> dict[str, Value]:
        """What all cases have in common."""
        return {
            "family": self.name,
            "mode": self.model.mode,
            "maxphyaddr": self.model.maxphyaddr,
            "page1gb": int(self.model.page1gb),
        }

    def case(self, control: Control, number: int) -> str:
        """A case for people, value by value."""
        common = {**self.fixed, **control.values()}
        return " ".join(f"{k}={v}" for k, v in common.items()) + " " + self.product.case(number)

    def grid(self, control: Control) -> Values:
        """The values of every axis under a control state, to select by."""
        common = {**self.fixed, **control.values()}
        return {**{name: np.array(value) for name, value in common.items()}, **self.product.grid()}


# ---- the bits of an entry ----

_BITS: Final = {
    "P": formats.P,
    "RW": formats.RW,
    "US": formats.US,
    "A": formats.A,
    "D": formats.D,
    "PS": formats.PS,
    "G": formats.G,
    "XD": formats.XD,
}
_PERMISSIVE: Final = ("P", "RW", "US")

_HIGHEST_ADDRESS_BIT: Final = 51
_LOWEST_FREE_BIT: Final = 9
_HIGHEST_FREE_BIT: Final = 62


def _flag(name: str) -> Axis:
    return Axis(name, (0, 1))


def _together(bits: Iterable[int]) -> str:
    """Bit numbers as a value of the axis `set`."""
    return "+".join(map(str, bits)) or "none"


def _mask(together: Value) -> int:
    """The bits that a value of the axis `set` stands for."""
    if together == "none":
        return 0
    return reduce(or_, (formats.bits(int(bit)) for bit in str(together).split("+")))


def _pages(model: Model, level: int) -> bool:
    """Whether an entry at a level can map a page, on this processor or on another."""
    format = formats.long_mode(model.levels, model.maxphyaddr, True, True)
    return format.levels[level].leaf is not None


def _shift(model: Model, level: int) -> int:
    return formats.long_mode(model.levels, model.maxphyaddr, True, True).levels[level].shift


def _beyond_memory(model: Model) -> int:
    """The address bits of which each is more than any guest's memory."""
    return formats.bits(model.maxphyaddr - 1, (LARGEST_RAM - 1).bit_length())


def _entry_axes(model: Model, level: int, names: Iterable[str], prefix: str) -> Iterator[Axis]:
    """Axes for single bits of an entry, as far as it has them."""
    for name in names:
        lacks_it = (name == "PS" and level == 0) or (name == "PAT" and not _pages(model, level))
        if not lacks_it:
            yield _flag(prefix + name)


def _address_rules(model: Model, level: int, prefix: str) -> tuple[Rule, ...]:
    """An entry that is present leads to the chain's own table or frame, or to no memory at all."""
    low, shift = formats.PAGE_BITS, _shift(model, level)
    pages = _pages(model, level)
    beyond = _beyond_memory(model)
    address = formats.bits(model.maxphyaddr - 1, low)
    frame = formats.bits(model.maxphyaddr - 1, shift)

    def chosen(values: Values, mask: int) -> Mask:
        sets = values[prefix + "set"]
        hits = [bool(_mask(together) & mask) for together in sets.ravel().tolist()]
        found: Mask = np.array(hits, np.bool_).reshape(sets.shape)
        return found

    def bit(values: Values, name: str, otherwise: int) -> Mask:
        there: Mask = values.get(prefix + name, np.array(otherwise)) == 1
        return there

    def present(values: Values) -> Mask:
        return bit(values, "P", 1)

    def page(values: Values) -> Mask:
        return bit(values, "PS", int(level == 0))

    def moved_table(values: Values) -> Mask:
        moved = chosen(values, address) | (bit(values, "PAT", 0) & (level > 0))
        return present(values) & ~page(values) & moved

    def moved_frame(values: Values) -> Mask:
        return present(values) & page(values) & pages & chosen(values, frame & ~beyond)

    def no_code(values: Values) -> Mask:
        fetch: Mask = values["access"] == "fetch"
        return present(values) & page(values) & pages & chosen(values, beyond) & fetch

    return (
        Rule("the table's address would be another", moved_table),
        Rule("the page's address would be another", moved_frame),
        Rule("there is nothing to execute where there is no memory", no_code),
    )


# ---- accesses and addresses ----

_ACCESS: Final = (
    Axis("access", ("read", "write", "fetch")),
    Axis("by", ("supervisor", "user")),
    Axis("ac", (0, 1)),
)
_KINDS: Final[Mapping[Value, Kind]] = {
    "read": Kind.READ,
    "write": Kind.WRITE,
    "fetch": Kind.FETCH,
}

_PAGE: Final = 1 << formats.PAGE_BITS
_OFFSETS: Final[Mapping[Value, int]] = {
    "first": 0,
    "middle": _PAGE // 2,
    "last-word": _PAGE - marks.WORD,
    "last-byte": _PAGE - 1,
}


def home(model: Model) -> int:
    """The address at which the cases are tried that do not vary it: the middle of a page, and
    another index at each level."""
    format = formats.long_mode(model.levels, model.maxphyaddr, True, True)
    address = format.levels[0].size // 2
    for number, level in enumerate(format.levels):
        address |= 17 * (number + 1) % (level.entries // 2) << level.shift
    return address


def places(model: Model) -> tuple[int, ...]:
    """The pages at which `place` tries its accesses: at every canonical edge, on both sides,
    and at random; none that the window takes."""
    format = formats.long_mode(model.levels, model.maxphyaddr, True, True)
    page, top = format.levels[0].size, format.levels[-1]
    edges = {0}
    for levels in (4, 5):
        for half in canonical_halves(levels):
            edges |= {half.first, half.first - page, half.last + 1, half.last + 1 - page}
    random = np.random.default_rng(model.levels)
    wild = random.integers(0, 1 << 64, RANDOM_ADDRESSES, np.uint64).tolist()
    lower, upper = canonical_halves(model.levels)
    tame = [address & lower.last | upper.first * (n % 2) for n, address in enumerate(wild)]
    pages = {address % (1 << 64) & -page for address in (*edges, *wild, *tame)}
    return tuple(sorted(p for p in pages if top.index(p) != WINDOW_SLOT))


_CODE_RULES: Final = (
    Rule(
        "the code that a fetch executes has no room in a page's last word",
        lambda values: (values["access"] == "fetch") & (values["offset"] == "last-word"),
    ),
    Rule(
        # target/i386/tcg/translate.c: pc_save, where -1 stands for no address
        "QEMU 7.2 ends itself (SIGABRT) at an instruction in the last byte of all addresses",
        lambda values: (
            (values["access"] == "fetch")
            & (values["offset"] == "last-byte")
            & (values["address"] == np.uint64((1 << 64) - _PAGE))
        ),
    ),
)


# ---- the families ----


def _product(axes: Iterable[Axis], rules: Iterable[Rule], address: Axis) -> Product:
    return Product((*axes, address, *_ACCESS), tuple(rules))


def _home(model: Model) -> Axis:
    return Axis("address", (home(model),), "#x")


def entry(model: Model, controls: tuple[Control, ...]) -> Iterator[Family]:
    """Every combination of the bits of one entry, each level in turn."""
    names = ("P", "RW", "US", "A", "D", "PS", "PAT", "G", "XD")
    for level in range(model.levels):
        sets: list[tuple[int, ...]] = [(), (11,), (52,), (58,)]
        m, last, below = model.maxphyaddr, _HIGHEST_ADDRESS_BIT, _shift(model, level) - 1
        if m <= last:
            sets += [(m,), (last,), (m, last)]
        if _pages(model, level):
            sets.append((m - 1,))
            if level > 0:
                sets += [(13,), (below,), (13, below), (13, last), (below, m)]
        axes = (
            Axis("level", (level,)),
            *_entry_axes(model, level, names, ""),
            Axis("set", tuple(map(_together, sets))),
        )
        rules = _address_rules(model, level, "")
        yield Family("entry", model, {level: ""}, _product(axes, rules, _home(model)), controls)


def bits(model: Model, controls: tuple[Control, ...], at_once: int) -> Iterator[Family]:
    """Every set of at most `at_once` bits that no other axis names, in one entry."""
    free = range(_LOWEST_FREE_BIT, _HIGHEST_FREE_BIT + 1)
    sets = [_together(some) for count in range(at_once + 1) for some in combinations(free, count)]
    for level in range(model.levels):
        axes = (
            Axis("level", (level,)),
            *_entry_axes(model, level, ("P", "PS", "XD"), ""),
            Axis("set", tuple(sets)),
        )
        rules = _address_rules(model, level, "")
        yield Family("bits", model, {level: ""}, _product(axes, rules, _home(model)), controls)


def pair(model: Model, controls: tuple[Control, ...]) -> Iterator[Family]:
    """What decides precedence and rights, in every two entries."""
    names = ("P", "RW", "US", "XD")
    sets = ("none", _together((_HIGHEST_ADDRESS_BIT,)))
    for lower, upper in combinations(range(model.levels), 2):
        axes = (
            Axis("upper", (upper,)),
            Axis("lower", (lower,)),
            *_entry_axes(model, upper, names, "upper."),
            Axis("upper.set", sets),
            *_entry_axes(model, lower, (*names, "PS"), "lower."),
            Axis("lower.set", sets),
        )
        rules = _address_rules(model, upper, "upper.") + _address_rules(model, lower, "lower.")
        varied = {upper: "upper.", lower: "lower."}
        yield Family("pair", model, varied, _product(axes, rules, _home(model)), controls)


def rights(model: Model, controls: tuple[Control, ...]) -> Iterator[Family]:
    """Every combination of rights in all entries."""
    varied = {level: f"level{level}." for level in range(model.levels)}
    axes = [
        axis
        for level, prefix in varied.items()
        for axis in _entry_axes(model, level, ("RW", "US", "XD"), prefix)
    ]
    yield Family("rights", model, varied, _product(axes, (), _home(model)), controls)


def place(model: Model, controls: tuple[Control, ...]) -> Iterator[Family]:
    """Every size of page at every edge."""
    for level in range(model.levels):
        if _pages(model, level):
            axes = (
                Axis("level", (level,)),
                *_entry_axes(model, level, ("RW", "US"), ""),
                Axis("PS", (int(level > 0),)),
                Axis("offset", tuple(_OFFSETS)),
            )
            pages = Axis("address", places(model), "#x")
            yield Family("place", model, {level: ""}, _product(axes, _CODE_RULES, pages), controls)


def families(preset: str, usual: Model, others: Iterable[Model]) -> Iterator[Family]:
    """What a preset tries in one mode.

    usual   the processor that all is tried on
    others  those that differ in what is reserved

    quick  every family on the usual processor, its control bits cleared one by one and all
           together; single bits on the others
    full   every family under every combination of control bits, entries on every processor
    """
    full = preset == "full"
    controls = EVERY_CONTROL if full else ONE_OFF
    few = EVERY_CONTROL if full else (ALL_ON, ALL_OFF)
    yield from pair(usual, controls)
    yield from rights(usual, few)
    yield from place(usual, few)
    for model in (usual, *others):
        if full or model == usual:
            yield from entry(model, controls)
        at_once = 2 if full and model == usual else 1
        yield from bits(model, (ALL_ON, Control(nxe=False)), at_once)


# ---- from numbers to lanes ----


def lanes(family: Family, chain: Chain, numbers: Counts) -> Lanes:
    """The accesses and entries of cases."""
    digits = family.product.places(numbers)
    axes = {axis.name: axis for axis in family.product.axes}

    def column(name: str, lookup: Callable[[Value], int] = int) -> Words:
        axis = axes[name]
        values = np.array([lookup(value) for value in axis.values], np.uint64)
        return values[digits[name]]

    kind = column("access", _KINDS.__getitem__).astype(np.uint8)
    fetch = kind == Kind.FETCH
    n = len(numbers)
    page, backed = np.zeros(n, np.uint8), np.ones(n, np.bool_)
    words = np.empty((family.model.levels, n), np.uint64)
    for level in range(family.model.levels):
        raw = np.full(n, _default(family, level), np.uint64)
        for name, lookup in _contributions(family, level):
            raw |= lookup[digits[name]]
        large = (raw & np.uint64(formats.PS)) != 0
        if level == 0:
            raw |= np.where(fetch, chain.code[0], chain.data[0])
        elif level < len(chain.data):
            page[large] = level
            frame = np.where(fetch, chain.code[level], chain.data[level])
            raw |= np.where(large, frame, np.uint64(chain.tables[level - 1].address))
        else:
            raw |= np.uint64(chain.tables[level - 1].address)
        if level < len(chain.data):
            beyond = _beyond_memory(family.model)
            backed &= ((raw & np.uint64(beyond)) == 0) | (page != level)
        words[level] = raw
    address, width = column("address"), np.full(n, marks.WORD, np.uint8)
    if "offset" in axes:
        address += column("offset", _OFFSETS.__getitem__)
        width[column("offset", lambda offset: offset == "last-byte") != 0] = 1
    return Lanes(
        words,
        address,
        kind,
        column("by", lambda who: who == "user") != 0,
        column("ac") != 0,
        width,
        page,
        backed,
    )


def code_places(family: Family) -> tuple[Words, Mask]:
    """The addresses that the cases fetch from, and whether the code there is a single byte."""
    axes = {axis.name: axis for axis in family.product.axes}
    pages = axes["address"].array
    if "offset" not in axes:
        return pages, np.zeros(len(pages), np.bool_)
    addresses = np.concatenate(
        [pages + np.uint64(_OFFSETS[name]) for name in ("first", "middle", "last-byte")]
    )
    single = np.arange(len(addresses)) >= 2 * len(pages)
    return addresses, single


def _default(family: Family, level: int) -> int:
    """The bits of an entry that no axis gives: it permits everything."""
    axes = {axis.name for axis in family.product.axes}
    prefix = family.varied.get(level)
    given = [name for name in _PERMISSIVE if prefix is None or prefix + name not in axes]
    return reduce(or_, (_BITS[name] for name in given), 0)


def _contributions(family: Family, level: int) -> Iterator[tuple[str, Words]]:
    """For each axis of an entry, the bits that each of its values sets."""
    prefix = family.varied.get(level)
    if prefix is None:
        return
    for axis in family.product.axes:
        name = axis.name.removeprefix(prefix)
        if not axis.name.startswith(prefix):
            continue
        if name == "set":
            yield axis.name, np.array([_mask(value) for value in axis.values], np.uint64)
        elif name in _BITS or name == "PAT":
            large = formats.PAT if level == 0 else formats.PAT_LARGE
            bit = _BITS.get(name, large)
            yield axis.name, np.array([bit * int(value) for value in axis.values], np.uint64)
