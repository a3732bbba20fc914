"""The families of sequences: accesses while the translations of those before are in place.

change  the control state changes between accesses, and back: rights are checked at each access, by
        the state that it is made under
twice   one entry carries every combination of its bits: it is read, then accessed, and again
alias   two addresses lead to one page by ways that part at one entry, which are neighbours in
        their table: rights are those of the way, D may be either's

`families` declares those of a single access.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import Final

from harness.check import marks
from harness.check.product import Axis, Product, Rule, Value
from harness.check.quirk import Quirk
from harness.check.x86.matrix.families import (
    ALL_OFF,
    ALL_ON,
    DATA_AND_CODE,
    EVERY_ACCESS,
    EVERY_SUPERVISOR,
    FOUR_KEYS,
    KEY_RIGHTS,
    KEYED,
    ONE_OFF,
    Family,
    address_rules,
    entry_axes,
    home,
    in_both_halves,
    keyed,
    maps_pages,
    one_reserved,
)
from harness.check.x86.matrix.stage import Change, Control, Model, Step
from harness.check.x86.quirks import PVM_KEEPS_XD_PAGE
from harness.machine.machine import Ability
from harness.paging.x86 import formats
from harness.paging.x86.formats import PAGE_BITS

TOGGLED: Final = ("wp", "smep", "smap")
"""Control bits after whose change no translation need be dropped: SMEP alone makes the processor
drop some itself (4.10.4.1)."""

_BY: Final = ("supervisor", "user")

XD_KEPT: Final = Rule(
    "a translation made with NXE=1 may be kept with NXE=0, where XD is reserved (4.10.4.1)",
    lambda values: (values["flush"] == "none") & (values["XD"] == 1),
)
AC_OF_USER: Final = Rule(
    "EFLAGS.AC plays no part in an access by the user: one value is tried in sequences",
    lambda values: (
        (values["by"] == "user") & (values["ac"] == 1)
        | (values["first.by"] == "user") & (values["first.ac"] == 1)
    ),
)
PVM_KEEPS_XD: Final = Rule(
    PVM_KEEPS_XD_PAGE.departs.removesuffix("."),
    lambda values: (
        (values["XD"] == 1)
        & (values["US"] == 1)
        & (values["by"] == "user")
        & (values["flush"] == "page")
        & (values["access"] != "fetch")
    ),
)
KEY_NOT_KEPT: Final = Rule(
    "a translation made with PKE=0 or PKS=0 may be kept without its key (4.10.2.2)",
    lambda values: values["flush"] == "none",
)

_FIRST, _AGAIN, _CHANGED = Step("first."), Step(), Step(then=True)
THERE_AND_BACK: Final = (_FIRST, _AGAIN, _CHANGED, _AGAIN)
THERE: Final = (_FIRST, _AGAIN, _CHANGED)


def _other(control: Control, bit: str) -> Control:
    return replace(control, **{bit: not getattr(control, bit)})


def _both_ways(a: Control, b: Control) -> tuple[Change, Change]:
    return Change(a, b), Change(b, a)


KEY_CHANGES: Final = (
    *_both_ways(KEYED, replace(KEYED, pkru=KEY_RIGHTS[2])),
    *_both_ways(KEYED, replace(KEYED, pkrs=keyed(0, KEY_RIGHTS[3]).pkrs)),
    *_both_ways(KEYED, replace(KEYED, wp=False)),
)
"""What changes of keys while they are heeded; WP decides about those that deny writing."""


def _accesses(
    first: Iterable[Value], then: Iterable[Value], acs: tuple[int, ...]
) -> tuple[Axis, ...]:
    """The axes of two accesses."""
    return (
        Axis("first.access", tuple(first)),
        Axis("first.by", _BY),
        Axis("first.ac", acs),
        Axis("access", tuple(then)),
        Axis("by", _BY),
        Axis("ac", acs),
    )


_AFTER_SUPERVISOR: Final = (
    Axis("first.by", ("supervisor",)),
    Axis("first.ac", (1,)),
    Axis("access", DATA_AND_CODE),
    Axis("by", _BY),
    Axis("ac", (0, 1)),
)


def _beside_home(model: Model) -> int:
    """An address in another small page than that of `home`, where no other family has code: here
    data and code are in one page."""
    return home(model) - (1 << PAGE_BITS - 2) ^ 4 << PAGE_BITS


def _address(model: Model) -> Axis:
    return Axis("address", (_beside_home(model),), "#x")


def change(
    model: Model,
    changes: tuple[Change, ...],
    steps: tuple[Step, ...],
    accesses: tuple[Axis, ...],
    keys: tuple[int, ...] = (),
    rules: tuple[Rule, ...] = (),
    bits: tuple[str, ...] = ("RW", "US", "XD"),
    address: Axis | None = None,
    needs: Ability | None = None,
) -> Iterator[Family]:
    """A page of each size, of which some bits vary, while the control state changes.

    rules  what needs a flush; beside the rest, which goes without, all is tried with INVLPG then
    """
    for level in range(model.levels):
        if maps_pages(model, level):
            axes = (
                Axis("level", (level,)),
                *entry_axes(model, level, bits, ""),
                Axis("PS", (int(level > 0),)),
                *((Axis("key", keys),) if keys else ()),
                Axis("flush", ("none", "page") if rules else ("none",)),
                address or _address(model),
                *accesses,
            )
            cases = Product(axes, (AC_OF_USER, *rules))
            yield Family("change", model, {level: ""}, cases, changes, needs=needs, steps=steps)


def twice(model: Model, controls: tuple[Control, ...]) -> Iterator[Family]:
    """Every combination of an entry's bits, accessed after a read, and once more."""
    for level in range(model.levels):
        axes = (
            Axis("level", (level,)),
            *entry_axes(model, level, ("P", "RW", "US", "A", "D", "PS", "XD"), ""),
            Axis("set", one_reserved(model)),
            _address(model),
            Axis("first.access", ("read",)),
            *_AFTER_SUPERVISOR,
        )
        cases = Product(axes, (AC_OF_USER, *address_rules(model, level, "")))
        steps = (_FIRST, _AGAIN, _AGAIN)
        yield Family("twice", model, {level: ""}, cases, controls, steps=steps)


ORDERS: Final = (
    (_FIRST, Step(there=True), _AGAIN),
    (_FIRST, Step("first.", there=True), Step(there=True), _AGAIN),
)
"""The other address is accessed after this one was, at once or after the same first access there;
then this one again."""


def alias(model: Model, controls: tuple[Control, ...], full: bool) -> Iterator[Family]:
    """A page of each size at two addresses whose paths part at its own entry, or at one above: the
    next, or any in full."""
    levels = range(model.levels)
    pages = [level for level in levels if maps_pages(model, level)]
    here, there = ("RW", "US"), ("P", "RW", "US", "XD")
    for parting, page, steps in product(levels, pages, ORDERS):
        if page > parting or (parting > page + 1 and not full):
            continue
        own, size = page == parting, (int(page > 0),)
        axes = (
            Axis("parting", (parting,)),
            Axis("page", (page,)),
            Axis("accesses", (len(steps),)),
            *entry_axes(model, parting, (*here, *(("XD",) if full else ())), "here."),
            *entry_axes(model, parting, there, "there."),
            *((Axis("here.PS", size), Axis("there.PS", size)) if own else (Axis("page.PS", size),)),
            *((Axis("there.set", one_reserved(model)),) if full else ()),
            _address(model),
            Axis("first.access", ("read", "write")),
            *_AFTER_SUPERVISOR,
        )
        shared = {} if own else {page: "page."}
        yield Family(
            "alias",
            model,
            {parting: "here.", **shared},
            Product(axes, (AC_OF_USER,)),
            controls,
            there={parting: "there.", **shared},
            steps=steps,
        )


def sequences(
    preset: str, usual: Iterable[Model], known: Collection[Quirk] = ()
) -> Iterator[Family]:
    """What a preset tries in one mode, on the processors that all is tried on.

    known  the departures of the engine, of which one is left out
    quick  each control bit changes while all others are set, and the rights of keys
    full   each does under every combination of the others, with pushes and descriptors
    """
    full = preset == "full"
    accesses = _accesses(DATA_AND_CODE, EVERY_ACCESS if full else DATA_AND_CODE, (0, 1))
    for model in usual:
        yield from change(model, _toggles(full), THERE_AND_BACK, accesses)
        yield from _nxe(model, EVERY_SUPERVISOR if full else (ALL_ON,), accesses, known)
        if model.long:
            yield from _keys(model, full)
            yield from _lass(model, accesses)
        yield from twice(model, ONE_OFF if full else (ALL_ON, ALL_OFF))
        yield from alias(model, ONE_OFF if full else (ALL_ON, Control(wp=False)), full)


def _toggles(full: bool) -> tuple[Change, ...]:
    if full:
        return tuple(Change(c, _other(c, bit)) for c, bit in product(EVERY_SUPERVISOR, TOGGLED))
    return tuple(way for bit in TOGGLED for way in _both_ways(ALL_ON, _other(ALL_ON, bit)))


def _nxe(
    model: Model,
    controls: Iterable[Control],
    accesses: tuple[Axis, ...],
    known: Collection[Quirk],
) -> Iterator[Family]:
    """EFER.NXE is set, after which nothing stale is cached, since XD was reserved before; or
    cleared.  Entries of 32-bit paging have no XD, but NXE and SMEP decide what is reported."""
    states = [control for control in controls if control.nxe]
    xd = model.format.entry_bytes == marks.WORD
    setting = tuple(Change(_other(control, "nxe"), control) for control in states)
    clearing = tuple(Change(control, _other(control, "nxe")) for control in states)
    yield from change(model, setting, THERE, accesses)
    rules = (XD_KEPT, *((PVM_KEEPS_XD,) if PVM_KEEPS_XD_PAGE in known else ())) if xd else ()
    yield from change(model, clearing, THERE, accesses, rules=rules)


def _lass(model: Model, accesses: tuple[Axis, ...]) -> Iterator[Family]:
    """LASS is set and cleared: it is no part of a translation, so nothing need be dropped."""
    ways = _both_ways(ALL_ON, _other(ALL_ON, "lass"))
    yield from change(
        replace(model, lass=True),
        ways,
        THERE_AND_BACK,
        accesses,
        address=in_both_halves(model, _beside_home(model)),
        needs=Ability.SEPARATED_HALVES,
    )


def _keys(model: Model, full: bool) -> Iterator[Family]:
    """The rights of keys, and whether they are heeded."""
    acs, keys = ((0, 1), range(formats.KEYS)) if full else ((0,), (0, *FOUR_KEYS))
    accesses = _accesses(DATA_AND_CODE, DATA_AND_CODE, acs)
    off = [_other(KEYED, bit) for bit in ("pke", "pks")]
    setting = tuple(Change(control, KEYED) for control in off)
    clearing = tuple(Change(KEYED, control) for control in off)
    for changes, steps, rules in (
        (KEY_CHANGES, THERE_AND_BACK, ()),
        (clearing, THERE, ()),
        (setting, THERE, (KEY_NOT_KEPT,)),
    ):
        yield from change(model, changes, steps, accesses, tuple(keys), rules, ("RW", "US"))
