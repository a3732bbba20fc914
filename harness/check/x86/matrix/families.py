"""The families of cases that make the matrix: what varies in each, declared as products.

entry   one entry carries every combination of its bits while the others permit everything
bits    one entry carries every single bit, and every pair, that no other axis names
pair    two entries carry what decides precedence, and what combines to rights
accessed  two entries carry A and D, beside what decides whether the access is made
rights  every entry carries every combination of rights
place   every size of page is accessed at every edge and at random, at its first, a middle,
        its last word, and its last byte.  What straddles two pages is left out: the order
        in which its halves are checked is the processor's own
flush   entries change under every way to drop translations
key     one entry carries every protection key, under PKRU and PKRS
locked  a page has a protection key, and an entry above it withholds rights
pdpte   a PDPTE carries every single bit, and every pair, when it is loaded
shadow  a page, and an entry above it, with what makes it a shadow stack or none, under shadow-stack
        accesses and others.  Outside long mode, the user's alone
halves  both halves of the addresses, which LASS tells apart, before whatever the entries say
lam     pointers with metadata
load    control registers change by single bits and more, and back, or refuse that

A family says what it needs of an engine; what none can is counted all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, reduce
from itertools import combinations, product
from operator import or_
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.check.marks import WORD
from harness.check.matrix import Declared
from harness.check.product import Axis, Product, Rule, Value, Values
from harness.check.quirk import Quirk, Version
from harness.check.x86 import marks
from harness.check.x86.matrix.chain import FLUSHES, INVPCID, Chain, Lanes, widest
from harness.check.x86.matrix.stage import WINDOW_KEY, Change, Control, Model, Step
from harness.check.x86.quirks import (
    BOCHS_LOSES_ITS_PAGES,
    ENDS_AT_LAST_BYTE,
    WIDEST_PSE36,
)
from harness.machine.machine import Ability, dotted
from harness.machine.x86.engines import called
from harness.machine.x86.processor import MachineInfo
from harness.machine.x86.registry import engine_named, engines_with
from harness.paging.bulk import Counts
from harness.paging.format import Shape
from harness.paging.memory import Mask, Words
from harness.paging.x86 import formats
from harness.paging.x86.access import Kind
from harness.paging.x86.cpu import LEGACY_SPAN, Mode, canonical_halves
from harness.paging.x86.formats import KEY_SHIFT

PRESETS: Final = ("quick", "full")

RANDOM_ADDRESSES: Final = 64


ALL_ON: Final = Control()
ALL_OFF: Final = Control(False, False, False, False, False)
WITH_PCIDS: Final = Control(pcide=True)
ONE_OFF: Final = (
    ALL_ON,
    Control(wp=False),
    Control(nxe=False),
    Control(smep=False),
    Control(smap=False),
    ALL_OFF,
)
EVERY_SUPERVISOR: Final = tuple(Control(*bits) for bits in product((True, False), repeat=4))
"""Every combination of WP, NXE, SMEP and SMAP."""
EVERY_CONTROL: Final = (*EVERY_SUPERVISOR, Control(pge=False), ALL_OFF)


def _rights_of_keys(rights: Iterable[int]) -> int:
    """A value of PKRU or PKRS, given the two bits of each key, or a number that ends in them."""
    return sum(right % 4 << 2 * key for key, right in enumerate(rights))


KEY_RIGHTS: Final = (
    *(_rights_of_keys(range(first, first + formats.KEYS)) for first in range(4)),
    _rights_of_keys(key // 4 for key in range(formats.KEYS)),
)
"""Values of PKRU that give every key every right, and no two keys the same rights in all."""


FOUR_KEYS: Final = (4, 5, 6, 7)
"""They have every right of keys under each of the first four of KEY_RIGHTS."""


def keyed(pkru: int, pkrs: int, **others: bool) -> Control:
    """Keys are heeded; PKRS leaves the stub its own pages."""
    keys = {"pke": True, "pks": True, "smap": False, **others}
    return Control(**keys, pkru=pkru, pkrs=pkrs & ~WINDOW_KEY)


KEYED: Final = keyed(KEY_RIGHTS[1], KEY_RIGHTS[2])
"""No key has the same rights to user pages and to supervisor pages."""

KEY_CONTROLS: Final = (
    *map(keyed, KEY_RIGHTS, KEY_RIGHTS[::-1]),
    replace(KEYED, wp=False),
    replace(KEYED, smap=True),
    replace(KEYED, pks=False),
    replace(KEYED, pke=False),
)
EVERY_KEY_CONTROL: Final = tuple(
    keyed(a, b, wp=wp, smap=smap, pke=pke, pks=pks)
    for a, b in product(KEY_RIGHTS, repeat=2)
    for wp, smap in product((True, False), repeat=2)
    for pke, pks in ((True, True), (True, False), (False, True))
)
LOCKED_CONTROLS: Final = tuple(
    replace(KEYED, **cleared)
    for cleared in (
        {},
        {"wp": False},
        {"nxe": False},
        {"smep": False},
        {"smap": True},
        {"pks": False},
        {"pke": False},
    )
)
SHADOW_CONTROLS: Final = tuple(
    Control(cet=True, **cleared)
    for cleared in ({}, {"smap": False}, {"nxe": False}, {"smep": False, "smap": False})
)
LOCKED_SHADOW_CONTROLS: Final = tuple(
    replace(KEYED, cet=True, **cleared)
    for cleared in ({}, {"smap": True}, {"pks": False}, {"pke": False})
)
HALVES_CONTROLS: Final = tuple(
    Control(lass=True, **cleared)
    for cleared in ({}, {"smap": False}, {"smep": False}, {"smep": False, "smap": False})
)
EVERY_HALVES_CONTROL: Final = (
    *(replace(control, lass=lass) for lass in (True, False) for control in EVERY_SUPERVISOR),
    *(
        replace(KEYED, lass=True, **cleared)
        for cleared in ({}, {"smap": True}, {"pks": False}, {"pke": False})
    ),
)
KEYS_IN_VAIN: Final = keyed((1 << 32) - 1, (1 << 32) - 1)
"""Outside long mode, keys play no part."""


ONE_ACCESS: Final = Step()


@dataclass(frozen=True)
class Family(Declared):
    """Cases of one model that vary the same entries.

    varied     the levels whose entries vary, with the prefix of their axes' names
    there      the same of the path to the other address, where there is one
    steps      the accesses of a case: nearly always one.  A sequence has several, between which
               nothing is flushed but by the axis `flush`, and no entry is written
    product    of the axes that the guest is given; the control state is beside it
    controls   the control states under which each case is tried
    feature    the feature without which the processor must not be asked
    needs      what not every engine can
    """

    name: str
    model: Model
    varied: Mapping[int, str]
    product: Product
    controls: tuple[Control | Change, ...]
    feature: str | None = None
    needs: Ability | None = None
    there: Mapping[int, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = (ONE_ACCESS,)

    @cached_property
    def fixed(self) -> dict[str, Value]:
        """What all cases have in common."""
        return {
            "family": self.name,
            **self.model.values(),
        }

    def lacks(self, engine: str, info: MachineInfo, version: Version | None = None) -> str | None:
        """Why an engine with this processor must not be asked, as a reason; None if it can be.

        version  of who executes for the engine; None for any
        """
        if self.needs is not None and self.needs not in engine_named(engine).can:
            others = " and ".join(engines_with(self.needs)) or "none"
            return f"{engine} is not asked to {self.needs.value}: {others} is"
        since = engine_named(engine).since(self.model.processor)
        if self.needs is not None and version is not None and version < since:
            return f"{called(engine, version)} cannot {self.needs.value}: {dotted(since)} can"
        if self.feature is None or info.has(self.feature):
            return None
        why = f"the engine's processor has no {self.feature.upper()}"
        if self.changes_cr4 and Ability.REFUSED_LOADS not in engine_named(engine).can:
            return f"{why}, and {engine} is not asked to {Ability.REFUSED_LOADS.value}"
        return why

    @property
    def changes_cr4(self) -> bool:
        """Whether the cases change bits of CR4."""
        return any(axis.values == ("cr4",) for axis in self.product.axes)

    @property
    def unasked(self) -> str | None:
        """Why no engine at all can be asked, as a reason; None if one can be."""
        if self.needs is None or engines_with(self.needs):
            return None
        return f"no engine can {self.needs.value}"

    def case(self, control: Control | Change, number: int) -> str:
        """A case for people, value by value."""
        common = {name: str(value) for name, value in self.fixed.items()}
        return " ".join(f"{name}={value}" for name, value in (common | control.shown()).items()) + (
            " " + self.product.case(number)
        )


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

_LOWEST_FREE_BIT: Final = 9
_KEY, _FLUSH, _PDPTE, _REGISTER, _PARTING = "key", "flush", "pdpte.", "register", "parting"
_CHANGED = "changed"
"""Names of axes, and the prefix of the bits of a PDPTE."""

PDPTE_REGISTERS: Final = (2, 0, 3)
"""Those that `pdpte` tries: that of its address first."""


def _flag(name: str) -> Axis:
    return Axis(name, (0, 1))


def _together(bits: Iterable[int]) -> str:
    """Bit numbers as a value of the axis `set`."""
    return "+".join(map(str, bits)) or "none"


@cache
def _mask(together: Value) -> int:
    """The bits that a value of the axis `set` stands for."""
    if together == "none":
        return 0
    return reduce(or_, (formats.bits(int(bit)) for bit in str(together).split("+")))


def maps_pages(model: Model, level: int) -> bool:
    """Whether an entry at a level can map a page, on this processor or on another."""
    return model.format.levels[level].leaf is not None


def _never_a_page(model: Model, level: int) -> bool:
    """Whether PS is ignored in the entries of a level."""
    return not model.long and level > 0 and not maps_pages(model, level)


def _beyond_memory(model: Model, level: int) -> int:
    """The bits of a page's address at a level of which each is more than the guest's memory."""
    leaf = model.format.levels[level].leaf
    beyond = 0
    for mask, shift in leaf.address if leaf else ():
        beyond |= mask & -(1 << (model.ram_bytes - 1).bit_length() >> shift)
    return beyond


def _address(shape: Shape | None) -> int:
    return reduce(or_, (field.mask for field in shape.address), 0) if shape else 0


def _classes(model: Model, level: int) -> Iterator[tuple[int, int]]:
    """Each class of reserved bits in the entries of a level, as its lowest and highest bit: those
    beyond the processor's addresses, and those below the address of a large page."""
    if model.format.entry_bytes < WORD:
        if level and maps_pages(model, level):
            width = min(WIDEST_PSE36, model.maxphyaddr) if model.pse36 else 32
            yield width - 19, 21
        return
    highest = 51 if model.long else 62
    if model.maxphyaddr <= highest:
        yield model.maxphyaddr, highest
    if level and maps_pages(model, level):
        yield 13, model.format.levels[level].shift - 1


def _sets(model: Model, level: int) -> list[tuple[int, ...]]:
    """The sets of bits that an entry carries besides those that have axes of their own: none, one
    that is ignored, the highest of an address, and of each class of reserved bits the first and
    the last, both, and each with those of another class."""
    sets: list[tuple[int, ...]] = [(), (11,)]
    if model.long:
        sets += [(52,), (58,)]
    if maps_pages(model, level):
        sets.append((_address(model.format.levels[level].leaf).bit_length() - 1,))
        if level and model.format.entry_bytes < WORD:
            sets += [(13,), (20,)]  # an address or reserved, as CPUID says
    classes = list(_classes(model, level))
    for low, high in classes:
        sets += [(low,), (high,), (low, high)]
    for (a, b), (c, d) in combinations(classes, 2):
        sets += [(c, b), (a, d), (a, c), (b, d)]
    unique = dict.fromkeys(tuple(sorted(set(bits))) for bits in sets)
    return list(unique)


def entry_axes(model: Model, level: int, names: Iterable[str], prefix: str) -> Iterator[Axis]:
    """Axes for single bits of an entry, as far as it has them."""
    lacking = {"PS"} if level == 0 else set()
    lacking |= set() if maps_pages(model, level) else {"PAT"}
    lacking |= set() if model.format.entry_bytes == WORD else {"XD"}
    for name in names:
        if name not in lacking:
            yield _flag(prefix + name)


def address_rules(model: Model, level: int, prefix: str) -> tuple[Rule, ...]:
    """An entry that is present leads to the chain's own table or frame, or to no memory at all."""
    here = model.format.levels[level]
    beyond = _beyond_memory(model, level)
    address, frame = _address(here.pointer), _address(here.leaf)

    def chosen(values: Values, mask: int) -> Mask:
        sets = values.get(prefix + "set", np.array("none"))
        hits = [bool(_mask(together) & mask) for together in sets.ravel().tolist()]
        found: Mask = np.array(hits, np.bool_).reshape(sets.shape)
        return found

    def bit(values: Values, name: str, otherwise: int) -> Mask:
        there: Mask = values.get(prefix + name, np.array(otherwise)) == 1
        return there

    def present(values: Values) -> Mask:
        return bit(values, "P", 1)

    def page(values: Values) -> Mask:
        if _never_a_page(model, level):
            return np.zeros_like(bit(values, "PS", 0))
        return bit(values, "PS", int(level == 0))

    def moved_table(values: Values) -> Mask:
        moved = chosen(values, address) | bit(values, "PAT", 0)
        return present(values) & ~page(values) & moved

    def moved_frame(values: Values) -> Mask:
        return present(values) & page(values) & chosen(values, frame & ~beyond)

    def no_code(values: Values) -> Mask:
        loads = np.isin(values["access"], ("fetch", "descriptor"))
        left_out: Mask = present(values) & page(values) & chosen(values, beyond) & loads
        return left_out

    return (
        Rule("the table's address would be another", moved_table),
        Rule("the page's address would be another", moved_frame),
        Rule("there is no code and no descriptor where there is no memory", no_code),
    )


# ---- accesses and addresses ----

_BY: Final = (Axis("by", ("supervisor", "user")), Axis("ac", (0, 1)))
DATA_AND_CODE: Final = ("read", "write", "fetch")
STACK_AND_SYSTEM: Final = ("push", "descriptor")
EVERY_ACCESS: Final = (*DATA_AND_CODE, *STACK_AND_SYSTEM)
_KINDS: Final[Mapping[Value, Kind]] = {
    "read": Kind.READ,
    "write": Kind.WRITE,
    "fetch": Kind.FETCH,
    "push": Kind.PUSH,
    "descriptor": Kind.READ,
    "shadow-read": Kind.SHADOW_READ,
    "shadow-write": Kind.SHADOW_WRITE,
    "return": Kind.SHADOW_READ,
    "call": Kind.SHADOW_WRITE,
}

BRANCHES: Final = ("return", "call")
SHADOW: Final = ("shadow-read", "shadow-write", *BRANCHES)
SHADOW_AND_OTHERS: Final = (*SHADOW, *DATA_AND_CODE)
_BY_SHADOW: Final = (Axis("by", ("supervisor", "user", "wruss")), Axis("ac", (0, 1)))
_SHADOW_RULES: Final = (
    Rule(
        "WRUSS does nothing but write to a shadow stack",
        lambda values: (values["by"] == "wruss") & (values["access"] != "shadow-write"),
    ),
    Rule(
        "the user has no stack here that CALL could write to",
        lambda values: (values["by"] == "user") & (values["access"] == "call"),
    ),
)

_USER_SHADOW_RULES: Final = (
    _SHADOW_RULES[0],
    Rule(
        "outside long mode the stub has no shadow stack of the supervisor's",
        lambda values: (values["by"] == "supervisor") & np.isin(values["access"], SHADOW),
    ),
)
_KEYED_STACK: Final = Rule(
    "the user's stack, which RET reads too, has a key that PKRU denies",
    lambda values: (values["by"] == "user") & (values["access"] == "return"),
)

_PAGE: Final = 1 << formats.PAGE_BITS
_OFFSETS: Final[Mapping[Value, int]] = {
    "first": 0,
    "middle": _PAGE // 2,
    "last-word": _PAGE,
    "last-byte": _PAGE - 1,
}
"""Where in a page an access begins; the last word is the last that the access fits into, whose
width is to be taken off."""


def home(model: Model) -> int:
    """The address at which the cases are tried that do not vary it: the middle of a page, and
    another index at each level."""
    address = model.format.levels[0].size // 2
    for number, level in enumerate(model.format.levels):
        address |= 17 * (number + 1) % (level.entries // 2) << level.shift
    return address if model.long else address | LEGACY_SPAN.size // 2


def places(model: Model) -> tuple[int, ...]:
    """The pages at which `place` tries its accesses: at every edge of what roots serve, on both
    sides, and at random; none that the window takes."""
    page, last = model.format.levels[0].size, (1 << 64 if model.long else LEGACY_SPAN.size) - 1
    edges = {0}
    for first in _edges(model):
        edges |= {first, first - page}
    random = np.random.default_rng(len(model.mode) + model.levels)
    wild = random.integers(0, last, RANDOM_ADDRESSES, np.uint64, endpoint=True).tolist()
    tame = []
    if model.long:
        lower, upper = canonical_halves(model.levels)
        tame = [address & lower.last | upper.first * (n % 2) for n, address in enumerate(wild)]
    pages = {address & last & -page for address in (*edges, *wild, *tame)}
    return tuple(sorted(p for p in pages if not any(p in window for window in model.windows)))


def _edges(model: Model) -> Iterator[int]:
    """Where something ends that roots of some mode serve."""
    if model.long:
        for half in (half for levels in (4, 5) for half in canonical_halves(levels)):
            yield from (half.first, half.last + 1)
    else:
        yield from range(0, LEGACY_SPAN.size, LEGACY_SPAN.size // formats.PDPTES)


_OFFSET_RULES: Final = (
    Rule(
        "the code that a fetch executes has no room in a page's last word",
        lambda values: (values["access"] == "fetch") & (values["offset"] == "last-word"),
    ),
    Rule(
        "a push or a descriptor is more than the last byte of a page",
        lambda values: (
            np.isin(values["access"], ("push", "descriptor")) & (values["offset"] == "last-byte")
        ),
    ),
)

_NOT_SURVIVED: Final[Mapping[Quirk, Rule]] = {
    ENDS_AT_LAST_BYTE: Rule(
        ENDS_AT_LAST_BYTE.departs.removesuffix("."),
        lambda values: (
            (values["access"] == "fetch")
            & (values["offset"] == "last-byte")
            & (values["address"] == np.uint64((1 << 64) - _PAGE))
        ),
    ),
}
"""What is left out of an engine that has a quirk."""


def not_survived(model: Model, control: Control | Change, known: Collection[Quirk]) -> str | None:
    """Why an engine with these departures must not be given a control state; None if it can be."""
    if BOCHS_LOSES_ITS_PAGES not in known or not model.long:
        return None
    for state in (control.first, control.then):
        if state.pke and state.wp and state.pkru & KEY_0_NO_WRITE:
            return BOCHS_LOSES_ITS_PAGES.departs.removesuffix(".")
    return None


KEY_0_NO_WRITE: Final = 0b10
"""In PKRU: the supervisor's own pages have key 0."""


def _place_rules(model: Model, known: Collection[Quirk]) -> tuple[Rule, ...]:
    if not model.long:
        return _OFFSET_RULES
    lower, upper = canonical_halves(model.levels)

    def no_table(values: Values) -> Mask:
        address: Words = values["address"]
        between = (address > np.uint64(lower.last)) & (address < np.uint64(upper.first))
        left_out: Mask = (values["access"] == "descriptor") & between
        return left_out

    no_ldt = Rule("no descriptor table can be where addresses are not canonical", no_table)
    lost = (rule for quirk, rule in _NOT_SURVIVED.items() if quirk in known)
    return (*_OFFSET_RULES, *lost, no_ldt)


# ---- the families ----


def _home(model: Model) -> Axis:
    return Axis("address", (home(model),), "#x")


def _product(
    axes: Iterable[Axis],
    rules: Iterable[Rule],
    address: Axis,
    access: tuple[Value, ...] = EVERY_ACCESS,
    by: tuple[Axis, ...] = _BY,
) -> Product:
    return Product((*axes, address, Axis("access", access), *by), tuple(rules))


def entry(
    model: Model, controls: tuple[Control, ...], access: tuple[Value, ...]
) -> Iterator[Family]:
    """Every combination of the bits of one entry, each level in turn."""
    names = ("P", "RW", "US", "A", "D", "PS", "PAT", "G", "XD")
    for level in range(model.levels):
        axes = (
            Axis("level", (level,)),
            *entry_axes(model, level, names, ""),
            Axis("set", tuple(map(_together, _sets(model, level)))),
        )
        rules = address_rules(model, level, "")
        product = _product(axes, rules, _home(model), access)
        yield Family("entry", model, {level: ""}, product, controls)


def bits(model: Model, controls: tuple[Control, ...], at_once: int) -> Iterator[Family]:
    """Every set of at most `at_once` bits that no other axis names, in one entry."""
    beyond = 8 * model.format.entry_bytes - (model.format.entry_bytes == WORD)
    free = range(_LOWEST_FREE_BIT, beyond)
    sets = [_together(some) for count in range(at_once + 1) for some in combinations(free, count)]
    for level in range(model.levels):
        axes = (
            Axis("level", (level,)),
            *entry_axes(model, level, ("P", "PS", "G", "XD"), ""),
            Axis("set", tuple(sets)),
        )
        rules = address_rules(model, level, "")
        product = _product(axes, rules, _home(model), DATA_AND_CODE)
        yield Family("bits", model, {level: ""}, product, controls)


def pair(
    model: Model, controls: tuple[Control, ...], access: tuple[Value, ...]
) -> Iterator[Family]:
    """What decides precedence and rights, in every two entries."""
    names = ("P", "RW", "US", "XD")
    for lower, upper in combinations(range(model.levels), 2):
        axes = (
            Axis("upper", (upper,)),
            Axis("lower", (lower,)),
            *entry_axes(model, upper, names, "upper."),
            Axis("upper.set", one_reserved(model)),
            *entry_axes(model, lower, (*names, "PS"), "lower."),
            Axis("lower.set", one_reserved(model)),
        )
        rules = address_rules(model, upper, "upper.") + address_rules(model, lower, "lower.")
        varied = {upper: "upper.", lower: "lower."}
        product = _product(axes, rules, _home(model), access)
        yield Family("pair", model, varied, product, controls)


def accessed(model: Model, controls: tuple[Control, ...], *more: str) -> Iterator[Family]:
    """A and D in every two entries, with presence, the right to write, `more` bits, and one that
    is reserved: on success both are set, and whatever was set before stays (4.8)."""
    for lower, upper in combinations(range(model.levels), 2):
        axes = (
            Axis("upper", (upper,)),
            Axis("lower", (lower,)),
            *entry_axes(model, upper, ("RW", "A", "D", *more), "upper."),
            *entry_axes(model, lower, ("P", "RW", "A", "D", "PS", *more), "lower."),
            Axis("lower.set", one_reserved(model)),
        )
        rules = address_rules(model, lower, "lower.")
        product = _product(axes, rules, _home(model), DATA_AND_CODE)
        yield Family("accessed", model, {upper: "upper.", lower: "lower."}, product, controls)


def one_reserved(model: Model) -> tuple[Value, ...]:
    """No bit, and one that is reserved in every entry, where there is one."""
    if model.format.entry_bytes < WORD:
        return ("none",)
    return "none", "51" if model.long else "62"


def rights(model: Model, controls: tuple[Control, ...]) -> Iterator[Family]:
    """Every combination of rights in all entries."""
    varied = {level: f"level{level}." for level in range(model.levels)}
    axes = [
        axis
        for level, prefix in varied.items()
        for axis in entry_axes(model, level, ("RW", "US", "XD"), prefix)
    ]
    yield Family("rights", model, varied, _product(axes, (), _home(model)), controls)


def place(
    model: Model, controls: tuple[Control, ...], known: Collection[Quirk]
) -> Iterator[Family]:
    """Every size of page at every edge."""
    for level in range(model.levels):
        if maps_pages(model, level):
            axes = (
                Axis("level", (level,)),
                *entry_axes(model, level, ("RW", "US"), ""),
                Axis("PS", (int(level > 0),)),
                Axis("offset", tuple(_OFFSETS)),
            )
            pages = Axis("address", places(model), "#x")
            product = _product(axes, _place_rules(model, known), pages)
            yield Family("place", model, {level: ""}, product, controls)


def key(model: Model, controls: tuple[Control, ...]) -> Iterator[Family]:
    """Every protection key, in the entries that can carry one and in those that cannot."""
    for level in range(model.levels):
        axes = (
            Axis("level", (level,)),
            *entry_axes(model, level, ("RW", "US", "PS"), ""),
            Axis(_KEY, tuple(range(formats.KEYS))),
        )
        rules = address_rules(model, level, "")
        yield Family("key", model, {level: ""}, _product(axes, rules, _home(model)), controls)


def locked(model: Model, controls: tuple[Control, ...], full: bool) -> Iterator[Family]:
    """A page with a key, and an entry above it that withholds rights: the key of a page is asked
    about as a user's or a supervisor's by the rights of all entries (4.6.2), and whatever else
    denies the access."""
    above, below = (("XD",), ("US",)) if full else ((), ())
    by = _BY if full else (_BY[0], Axis("ac", (0,)))
    for lower, upper in combinations(range(model.levels), 2):
        if maps_pages(model, lower):
            axes = (
                Axis("upper", (upper,)),
                Axis("lower", (lower,)),
                *entry_axes(model, upper, ("RW", "US", *above), "upper."),
                *entry_axes(model, lower, ("P", "RW", "XD", "A", "D", *below), "lower."),
                Axis("lower.PS", (int(lower > 0),)),
                Axis("lower.key", FOUR_KEYS),
            )
            product = _product(axes, (), _home(model), DATA_AND_CODE, by)
            yield Family("locked", model, {upper: "upper.", lower: "lower."}, product, controls)


_KEEPS_GLOBAL: Final = (
    Rule(
        "MOV CR3 may leave the translation of a global page (4.10.4.1)",
        lambda values: (values[_FLUSH] == "all") & (values["G"] == 1),
    ),
    Rule(
        "INVPCID may leave the translation of a global page but by type 2 (4.10.4.1)",
        lambda values: (
            np.isin(values[_FLUSH], [way for way in INVPCID if way != "invpcid-all"])
            & (values["G"] == 1)
        ),
    ),
)


def flush(model: Model) -> Iterator[Family]:
    """Entries that change from case to case, and every way to drop what they said before.

    What may keep the translation of a global page comes first, while there is none.
    """
    for ways, feature, controls in (
        (("all", "page", "global"), None, (Control(), Control(pge=False))),
        (INVPCID, "invpcid", (Control(), Control(pge=False), *((WITH_PCIDS,) * model.long))),
    ):
        for level, control in product(range(model.levels), controls):
            axes = (
                Axis(_FLUSH, ways),
                Axis("level", (level,)),
                *entry_axes(model, level, ("G", "P", "RW", "US", "PS"), ""),
            )
            rules = address_rules(model, level, "")
            rules += _KEEPS_GLOBAL if control.pge else ()
            cases = _product(axes, rules, _home(model), DATA_AND_CODE)
            yield Family("flush", model, {level: ""}, cases, (control,), feature=feature)


def pdpte(model: Model, controls: tuple[Control, ...], at_once: int) -> Iterator[Family]:
    """Every set of at most `at_once` bits in a PDPTE: that of the address, or another."""
    taken = _address(formats.pdpte(model.maxphyaddr)) | formats.P
    free = [bit for bit in range(64) if not taken & formats.bits(bit)]
    sets = [_together(some) for count in range(at_once + 1) for some in combinations(free, count)]
    top = model.levels - 1
    for register in PDPTE_REGISTERS:
        axes = (
            Axis(_REGISTER, (register,)),
            _flag(_PDPTE + "P"),
            Axis(_PDPTE + "set", tuple(sets)),
            *entry_axes(model, top, ("P", "RW"), ""),
            Axis(_FLUSH, ("all",)),
        )
        product = _product(axes, (), _home(model), DATA_AND_CODE)
        yield Family("pdpte", model, {top: ""}, product, controls)


@dataclass(frozen=True)
class _Change:
    """Bits of a control register that are changed, and what that takes.

    sets                  of bits that are changed at once
    survives_everywhere   whether an engine that refuses nothing survives them as well,
                          so that all are asked
    """

    register: str
    sets: tuple[tuple[int, ...], ...]
    survives_everywhere: bool = False
    controls: tuple[Control, ...] = (ALL_ON, ALL_OFF)
    feature: str | None = None
    shadow_stacks: bool = False


def _singly(*bits: int) -> tuple[tuple[int, ...], ...]:
    return tuple((bit,) for bit in bits)


_CR4_OF_NO_FEATURE: Final = (15, 26, 28, 29, 30, 31)
_LONG_CHANGES: Final[tuple[_Change, ...]] = (
    _Change("cr4", ((12,), (4, 12)), survives_everywhere=True, feature="la57"),
    _Change("cr4", _singly(5, *_CR4_OF_NO_FEATURE, 33, 40, 63)),
    _Change("cr0", ((0,), (31,), (0, 31), (29,), (29, 30), (30,), (32,), (63,))),
    _Change("cr0", _singly(16), survives_everywhere=True),
    _Change("cr3", _singly(0, 3, 4, 5, 11), survives_everywhere=True),
    _Change("cr3", _singly(63), controls=(WITH_PCIDS,), feature="pcid"),
    _Change(
        "cr3",
        ((0,), (3, 4, 11)),
        survives_everywhere=True,
        controls=(WITH_PCIDS,),
        feature="pcid",
    ),
    _Change("cr4", _singly(17), survives_everywhere=True, feature="pcid"),
    _Change("cr4", _singly(17), controls=(Control(pcd=True),), feature="pcid"),
    _Change("cr4", _singly(23), controls=(ALL_ON, Control(wp=False)), shadow_stacks=True),
    _Change("cr0", _singly(16), controls=(ALL_ON, Control(cet=True)), shadow_stacks=True),
)
_LEGACY_CHANGES: Final[tuple[_Change, ...]] = (
    _Change("cr4", _singly(17, *_CR4_OF_NO_FEATURE)),
    _Change("cr0", ((0,), (29,), (29, 30), (30,))),
    _Change("cr0", _singly(16), survives_everywhere=True),
    _Change("cr3", _singly(3, 4), survives_everywhere=True),
)


def load(model: Model) -> Iterator[Family]:
    """What control registers take and what they refuse, before an access and back after it."""
    changes = _LONG_CHANGES if model.long else _LEGACY_CHANGES
    if model.long:
        high = tuple(range(model.maxphyaddr, 64))
        changes += (
            _Change("cr3", (*_singly(*high), high, (3, high[0]))),
            _Change("cr3", (*_singly(*high[:-1]), high), controls=(WITH_PCIDS,), feature="pcid"),
        )
    for one in changes:
        axes = (
            Axis(_FLUSH, (one.register,)),
            Axis(_CHANGED, tuple(map(_together, one.sets))),
            _home(model),
            Axis("access", ("read",)),
            *_BY,
        )
        yield Family(
            "load",
            replace(model, shadow_stacks=one.shadow_stacks),
            {},
            Product(axes),
            one.controls,
            feature=one.feature,
            needs=None if one.survives_everywhere else Ability.REFUSED_LOADS,
        )


def shadow(model: Model, full: bool) -> Iterator[Family]:
    """What makes a page a shadow stack, of which mode it is, and what else denies the access."""
    model = replace(model, shadow_stacks=True)
    more, upper_more = (("A", "XD"), ("D",)) if full else ((), ())
    more_rules: tuple[Rule, ...] = _SHADOW_RULES
    access: tuple[Value, ...] = SHADOW_AND_OTHERS
    if not model.long:
        more_rules = _USER_SHADOW_RULES
        access = tuple(one for one in access if one not in BRANCHES)
    for lower, upper in combinations(range(model.levels), 2):
        axes = (
            Axis("upper", (upper,)),
            Axis("lower", (lower,)),
            *entry_axes(model, upper, ("RW", "US", *upper_more), "upper."),
            *entry_axes(model, lower, ("P", "RW", "US", "D", "PS", *more), "lower."),
            Axis("lower.set", one_reserved(model)),
        )
        rules = (*address_rules(model, lower, "lower."), *more_rules)
        product = _product(axes, rules, _home(model), access, _BY_SHADOW)
        varied, needs = {upper: "upper.", lower: "lower."}, Ability.SHADOW_STACKS
        yield Family("shadow", model, varied, product, SHADOW_CONTROLS, needs=needs)
        if model.long and maps_pages(model, lower):
            axes = (
                Axis("upper", (upper,)),
                Axis("lower", (lower,)),
                *entry_axes(model, upper, ("US",), "upper."),
                *entry_axes(model, lower, ("RW", "D"), "lower."),
                Axis("lower.PS", (int(lower > 0),)),
                Axis("lower.key", FOUR_KEYS),
            )
            rules = (*_SHADOW_RULES, _KEYED_STACK)
            product = _product(axes, rules, _home(model), SHADOW, _BY_SHADOW)
            yield Family("shadow", model, varied, product, LOCKED_SHADOW_CONTROLS, needs=needs)


def in_both_halves(model: Model, address: int) -> Axis:
    """An address of the lower half, and the same in the upper."""
    _, upper = canonical_halves(model.levels)
    return Axis("address", (address, upper.first | address), "#x")


def halves(model: Model, full: bool) -> Iterator[Family]:
    """Accesses in both halves of the addresses, to what the entries of two levels allow and to what
    they do not, and at their edges.  Where LASS ends an access there is no walk: no A is set."""
    model = replace(model, lass=True)
    controls = EVERY_HALVES_CONTROL if full else HALVES_CONTROLS
    for lower, upper in combinations(range(model.levels), 2):
        axes = (
            Axis("upper", (upper,)),
            Axis("lower", (lower,)),
            *entry_axes(model, upper, ("P", "US"), "upper."),
            *entry_axes(model, lower, ("P", "RW", "US", "PS", "XD"), "lower."),
            Axis("lower.set", one_reserved(model)),
        )
        rules = address_rules(model, lower, "lower.")
        product = _product(axes, rules, in_both_halves(model, home(model)))
        varied, needs = {upper: "upper.", lower: "lower."}, Ability.SEPARATED_HALVES
        yield Family("halves", model, varied, product, controls, needs=needs)
    axes = (*entry_axes(model, 0, ("RW", "US"), ""), Axis("offset", tuple(_OFFSETS)))
    product = _product(axes, _place_rules(model, ()), Axis("address", places(model), "#x"))
    yield Family("halves", model, {0: ""}, product, controls, needs=Ability.SEPARATED_HALVES)


def lam(model: Model) -> Iterator[Family]:
    """Pointers with metadata, in the bits that each width leaves to it."""
    tagged = tuple(home(model) | formats.bits(62, low) for low in (48, 57, 62))
    product = Product((Axis("address", tagged, "#x"), Axis("access", DATA_AND_CODE), *_BY))
    yield Family("lam", model, {}, product, (ALL_ON,), needs=Ability.MASKED_POINTERS)


def families(
    preset: str, usual: Iterable[Model], others: Iterable[Model], known: Collection[Quirk] = ()
) -> Iterator[Family]:
    """What a preset tries in one mode.

    usual   the processors that all is tried on
    others  those that differ in what is reserved
    known   the departures of the engine, which may not survive everything

    quick  every family on the usual processors, its control bits cleared one by one and all
           together; single bits on the others
    full   every family under every combination of control bits, and entries on all processors
    """
    full = preset == "full"
    few = EVERY_CONTROL if full else (ALL_ON, ALL_OFF)
    for model in usual:
        for family in (pair, entry):
            if full:
                yield from family(model, EVERY_CONTROL, EVERY_ACCESS)
            else:
                yield from family(model, ONE_OFF, DATA_AND_CODE)
                yield from family(model, few, STACK_AND_SYSTEM)
        if full:
            yield from accessed(model, (ALL_ON, Control(nxe=False), ALL_OFF), "US", "XD")
        else:
            yield from accessed(model, few)
        yield from rights(model, few if model.long else (*few, KEYS_IN_VAIN))
        yield from place(model, few, known)
        yield from flush(model)
        if model.long:
            yield from key(model, EVERY_KEY_CONTROL if full else KEY_CONTROLS)
            yield from locked(model, LOCKED_CONTROLS, full)
            yield from halves(model, full)
            yield from lam(model)
        yield from load(model)
        yield from shadow(model, full)
        yield from _single(model, 2 if full else 1)
    for model in others:
        if full:
            yield from entry(model, ONE_OFF, EVERY_ACCESS)
        yield from _single(model, 1)


def _single(model: Model, at_once: int) -> Iterator[Family]:
    """The families that try single bits, and more of them at once."""
    yield from bits(model, (ALL_ON, Control(nxe=False)), at_once)
    if Mode(model.mode) is Mode.PAE:
        yield from pdpte(model, (ALL_ON, ALL_OFF), at_once)


# ---- from numbers to lanes ----


def lanes(
    family: Family, chain: Chain, numbers: Counts, step: Step = ONE_ACCESS, again: bool = False
) -> Lanes:
    """The accesses and entries of cases, in one of their steps.

    again  whether another access of the case came before
    """
    column = _Columns(family.product, numbers)
    kind = column(step.access + "access", _KINDS.__getitem__).astype(np.uint8)
    implicit = column(step.access + "access", lambda access: access == "descriptor") != 0
    fetch, sequence = kind == Kind.FETCH, len(family.steps) > 1
    n = len(numbers)
    page, backed = np.zeros(n, np.uint8), np.ones(n, np.bool_)
    words = np.empty((family.model.levels, n), np.uint64)
    varied = family.there if step.there else family.varied
    for level in range(family.model.levels):
        raw = np.full(n, _default(family, varied, level), np.uint64)
        prefix = varied.get(level)
        for name, lookup in () if prefix is None else _bits_of(family, prefix, level):
            raw |= lookup[column.digits[name]]
        if level and (not maps_pages(family.model, level) or level >= len(chain.data)):
            words[level] = raw | np.uint64(chain.tables[level - 1].address)
            continue
        frame = np.where(fetch, chain.code[level], chain.data[level])
        if sequence:
            frame = np.full(n, chain.mixed[level])
        large = (raw & np.uint64(formats.PS)) != 0
        if level == 0:
            words[level] = raw | frame
        else:
            page[large] = level
            words[level] = raw | np.where(large, frame, np.uint64(chain.tables[level - 1].address))
        beyond = np.uint64(_beyond_memory(family.model, level))
        backed &= ((raw & beyond) == 0) | (page != level)
    address, width = column("address"), np.full(n, widest(chain.cpu), np.uint8)
    width[implicit] = WORD
    if "offset" in column.axes:
        width[column("offset", lambda offset: offset == "last-byte") != 0] = 1
        address += column("offset", _OFFSETS.__getitem__)
        last = column("offset", lambda offset: offset == "last-word") != 0
        address[last] -= width[last]
    if sequence:
        address[fetch] += np.uint64(marks.CODE)
    if step.there:
        address ^= column(_PARTING, lambda level: 1 << chain.cpu.format.levels[int(level)].shift)
    return Lanes(
        words=words,
        address=address,
        kind=kind,
        user=column(step.access + "by", lambda who: who != "supervisor") != 0,
        wruss=column(step.access + "by", lambda who: who == "wruss") != 0,
        branch=column(step.access + "access", lambda access: access in BRANCHES) != 0,
        implicit=implicit,
        ac=column(step.access + "ac") != 0,
        width=width,
        page=page,
        backed=backed,
        flush=_flushes(column, sequence, again),
        changed=column(_CHANGED, _mask) if _CHANGED in column.axes else np.zeros(n, np.uint64),
        **_pdptes(family, chain, column.digits, n),
    )


class _Columns:
    """What the cases of a product have on its axes, as words."""

    def __init__(self, product: Product, numbers: Counts) -> None:
        self.digits = product.places(numbers)
        self.axes = {axis.name: axis for axis in product.axes}
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __call__(self, name: str, lookup: Callable[[Value], int] = int) -> Words:
        """The values of one axis, each looked up."""
        values = np.array([lookup(value) for value in self.axes[name].values], np.uint64)
        column: Words = values[self.digits[name]]
        return column


def _flushes(column: _Columns, sequence: bool, again: bool) -> npt.NDArray[np.uint8]:
    """How translations are dropped before an access: by INVLPG, unless the axis says otherwise, or
    the access is not the first of its case."""
    said = _FLUSH in column.axes and again == sequence
    if said:
        return column(_FLUSH, FLUSHES.index).astype(np.uint8)
    return np.full(len(column), FLUSHES.index("none" if again else "page"), np.uint8)


def _pdptes(
    family: Family, chain: Chain, digits: Mapping[str, Counts], n: int
) -> dict[str, npt.NDArray[Any]]:
    """The PDPTEs that cases load, and the registers."""
    registers = [axis.values for axis in family.product.axes if axis.name == _REGISTER]
    pdpte = np.empty((len(registers), n), np.uint64)
    for raw, (register,) in zip(pdpte, registers, strict=True):
        raw[:] = chain.cpu.pdptes[int(register)] & ~formats.P
        for name, lookup in _bits_of(family, _PDPTE):
            raw |= lookup[digits[name]]
    of = np.array(registers, np.uint8).reshape(-1, 1)
    return {"pdpte": pdpte, "register": np.broadcast_to(of, (len(registers), n))}


def code_places(family: Family) -> tuple[Words, Mask]:
    """The addresses that the cases fetch from, and whether the code there is a single byte."""
    axes = {axis.name: axis for axis in family.product.axes}
    places = axes["address"].array
    if "offset" not in axes:
        beside = marks.CODE if len(family.steps) > 1 else 0
        return places + np.uint64(beside), np.zeros(len(places), np.bool_)
    addresses = np.concatenate(
        [places + np.uint64(_OFFSETS[name]) for name in ("first", "middle", "last-byte")]
    )
    single = np.arange(len(addresses)) >= 2 * len(places)
    return addresses, single


def _default(family: Family, varied: Mapping[int, str], level: int) -> int:
    """The bits of an entry that no axis gives: it permits everything."""
    axes = {axis.name for axis in family.product.axes}
    prefix = varied.get(level)
    given = [name for name in _PERMISSIVE if prefix is None or prefix + name not in axes]
    return reduce(or_, (_BITS[name] for name in given), 0)


def _bits_of(family: Family, prefix: str, level: int = 0) -> Iterator[tuple[str, Words]]:
    """For each axis of an entry, the bits that each of its values sets."""
    for axis in family.product.axes:
        name = axis.name.removeprefix(prefix)
        if not axis.name.startswith(prefix):
            continue
        if name == "set":
            yield axis.name, np.array([_mask(value) for value in axis.values], np.uint64)
        elif name == _KEY or name in _BITS or name == "PAT":
            unit = {"PAT": formats.PAT_LARGE if level else formats.PAT, _KEY: 1 << KEY_SHIFT}
            bit = unit.get(name) or _BITS[name]
            yield axis.name, np.array([bit * int(value) for value in axis.values], np.uint64)
