"""Layouts for s390: built, compared with the machine, and faults of the reference found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.check.layouts import LayoutError, divided, load, parse, shipped
from harness.check.s390 import probes, validate
from harness.check.s390.layouts import DESCRIBED, build
from harness.check.validation import SpaceReport
from harness.machine.s390.processor import MachineInfo
from harness.paging import bulk
from harness.paging.bulk import End
from harness.paging.memory import BigEndianMemory
from harness.paging.s390.bulk import ALLOWED, Outcomes, outcomes
from tests.check.tampered import Seen, looked_at, noted, root_entry
from tests.machine.s390.present import QEMU, why_absent

MODES = DESCRIBED.modes
LAYOUTS = {path.stem: path for path in shipped("s390")}
MANY = ("aliases", "dense", "sparse")
"""Those that take longer."""

PAGES = {"smallest": 1, "aliases": 1024 + 4, "dense": 2048, "sparse": 60, "rights": 7 + 2 * 4}
"""How many pages some layouts have."""

INFO = MachineInfo(frozenset({130}), 0)
"""QEMU's processor: IEP, and no enhanced DAT."""


def validated(name: str, levels: int) -> SpaceReport:
    """What comes of a shipped layout; a skip where there is no machine for it."""
    if reason := why_absent():
        pytest.skip(reason)
    return validate.validate(load(LAYOUTS[name]), levels, program=QEMU)


@pytest.mark.parametrize("levels", MODES, ids=MODES.values())
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_built_in_every_mode(name: str, levels: int) -> None:
    layout = load(LAYOUTS[name])
    tables, frames = divided(layout)
    memory = BigEndianMemory(np.zeros(tables.size, np.uint8), tables.first)
    cpu = build(layout, levels, INFO, memory)
    assert len(cpu.format.levels) == levels == cpu.levels
    assert cpu.designation.quarters == {"one-quarter": 1, "three-quarters": 3}.get(name, 4)
    leaves = bulk.leaves(memory, cpu.roots)
    pages = leaves.take(leaves.end == End.LEAF)
    assert (pages.physical >= np.uint64(frames.first)).all()
    if name in PAGES:
        assert len(pages.virtual) == PAGES[name]


@pytest.mark.hw
@pytest.mark.parametrize("levels", MODES, ids=MODES.values())
@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in MANY])
def test_the_machine_agrees(name: str, levels: int) -> None:
    report = validated(name, levels)
    assert report.disagreed == 0, report.disagreements[0]
    assert report.compared > 400
    assert not report.count("news") and not report.count("quirks")
    assert not report.count("not_comparable")


@pytest.mark.hw
@pytest.mark.parametrize("name", MANY)
def test_the_machine_agrees_on_many_pages(name: str) -> None:
    report = validated(name, 4)
    assert report.disagreed == 0, report.disagreements[0]
    assert report.compared > 2000


def test_what_the_processor_lacks_is_refused() -> None:
    tables, _ = divided(layout := load(LAYOUTS["rights"]))
    memory = BigEndianMemory(np.zeros(tables.size, np.uint8), tables.first)
    with pytest.raises(LayoutError, match="no instruction-execution protection"):
        build(layout, 3, MachineInfo(frozenset(), 0), memory)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quarters = 5", "quarters is 5, where 1 to 4 is asked for"),
        ("private = 1", "neither true nor false"),
        ("wp = true", "no key 'wp'"),
    ],
)
def test_a_control_state_that_cannot_be_is_refused(text: str, said: str) -> None:
    head = 'title = "wrong"\narch = "s390"\nlevels = [3]\n[cpu]\n'
    with pytest.raises(LayoutError, match=said):
        parse(f"{head}{text}\n", "wrong.toml")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ('size = "2M"', "pages of s390 have 4K"),
        ('size = "1M"', "map 1: size is 1M, and the processor has no enhanced-DAT facility 1"),
        ('size = "2G"', "map 1: size is 2G, and the processor has no enhanced-DAT facility 2"),
        ('size = "1M"\n[cpu]\nedat = false', "and the layout turns enhanced DAT off"),
        ('size = "4K"\nrights = "r"', "letters w, x"),
        ('size = "4K"\nphysical = 0x100_0000', "below 0x3000000 lie"),
    ],
)
def test_pages_that_cannot_be_are_refused(part: str, said: str) -> None:
    text = f'title = "wrong"\narch = "s390"\nlevels = [3]\n[[map]]\nvirtual = 0\n{part}\n'
    with pytest.raises(LayoutError, match=said):
        tables, _ = divided(layout := parse(text, "wrong.toml"))
        memory = BigEndianMemory(np.zeros(tables.size, np.uint8), tables.first)
        build(layout, 3, INFO, memory)


def test_frames_of_1m_are_for_a_processor_that_has_them() -> None:
    text = 'title = "large"\narch = "s390"\nlevels = [3]\nram = "128M"\n'
    layout = parse(f'{text}[[map]]\nvirtual = 0\nsize = "1M"\n', "large.toml")
    tables, _ = divided(layout)
    memory = BigEndianMemory(np.zeros(tables.size, np.uint8), tables.first)
    cpu = build(layout, 3, MachineInfo(frozenset({8, 130}), 0), memory)
    assert bulk.leaves(memory, cpu.roots).level.tolist() == [1]


# ---- faults of the reference ----


def _with(**changes: Callable[[Any], Any]) -> Callable[..., Outcomes]:
    """The reference with some of its arguments changed."""

    def wrong(cpu: Any, memory: Any, address: Any, kind: Any, space: Any) -> Outcomes:
        given = {"cpu": cpu, "kind": kind, "space": space}
        given |= {name: change(given[name]) for name, change in changes.items()}
        return outcomes(given["cpu"], memory, address, given["kind"], given["space"])

    return wrong


def _found(change: Callable[[Outcomes], Outcomes]) -> Callable[..., Outcomes]:
    return lambda *asked: change(outcomes(*asked))


def _codes(before: int, after: int) -> Callable[..., Outcomes]:
    return _found(lambda o: replace(o, code=np.where(o.code == before, after, o.code)))


def _physical(change: int) -> Callable[..., Outcomes]:
    def changed(found: Outcomes) -> Outcomes:
        leaf = found.walks.end == End.LEAF
        physical = np.where(leaf, found.walks.physical ^ np.uint64(change), np.uint64(0))
        return replace(found, walks=replace(found.walks, physical=physical))

    return _found(changed)


PLANTED: dict[str, tuple[str, Callable[..., Outcomes]]] = {
    "P plays no part": ("rights", _codes(4, ALLOWED)),
    "IEP plays no part": ("rights", _with(cpu=lambda c: replace(c, iep=False))),
    "IEP denies where it is off": (
        "without-iep",
        _with(cpu=lambda c: replace(c, cr0=1 << 20, iep=True)),
    ),
    "a store is a read": ("rights", _with(kind=lambda k: np.where(k == 1, 0, k).astype(np.uint8))),
    "a fetch is a read": ("rights", _with(kind=lambda k: np.where(k == 2, 0, k).astype(np.uint8))),
    "the space is the primary": ("smallest", _with(space=np.zeros_like)),
    "the neighbouring frame": ("smallest", _physical(0x1000)),
    "a frame beyond all memory": ("smallest", _physical(1 << 40)),
    "a page has the code of a segment": ("smallest", _codes(0x11, 0x10)),
    "too wide an address has the code of its table": ("smallest", _codes(0x38, 0x3B)),
    "TL is not looked at": ("one-quarter", _with(cpu=lambda c: replace(c, asce=c.asce | 3))),
    "common segments are allowed": (
        "private",
        _with(cpu=lambda c: replace(c, asce=c.asce & ~0x100, cr0=0)),
    ),
    "low addresses are protected in a private space": (
        "private",
        _with(cpu=lambda c: replace(c, asce=c.asce & ~0x100)),
    ),
    "low addresses are not protected": ("low-addresses", _with(cpu=lambda c: replace(c, cr0=0))),
    "TEIDs have the address": (
        "smallest",
        _found(lambda o: replace(o, teid=np.where(o.teid, o.teid | np.uint64(8), o.teid))),
    ),
    "reads set the change bit": (
        "smallest",
        _found(lambda o: replace(o, changes=o.code == ALLOWED)),
    ),
    "stores set no change bit": (
        "smallest",
        _found(lambda o: replace(o, changes=np.zeros_like(o.changes))),
    ),
    "what is malformed is invalid": ("malformed", _codes(0x12, 0x11)),
}
"""Faults of the reference, each with a layout that shows it."""


@pytest.mark.hw
@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_of_the_reference_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = PLANTED[fault]
    monkeypatch.setattr(probes, "outcomes", wrong)
    assert validated(name, 3).disagreed > 0


@pytest.mark.hw
def test_tables_that_change_behind_the_harness_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last quarter of a table, too: tables of other levels are larger."""
    asked = probes.ask_guest

    def and_writes(guest: Any, state: Any, cpu: Any, memory: Any, *rest: Any) -> Any:
        found = asked(guest, state, cpu, memory, *rest)
        memory.store(cpu.roots[0].table.slot(2047).address, 8, 0x21)
        return found

    monkeypatch.setattr(probes, "ask_guest", and_writes)
    report = validated("smallest", 4)
    assert report.disagreed == 1
    assert report.disagreements[0].oracle == "table bytes"


@pytest.mark.hw
def test_every_field_of_a_result_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, lanes = noted(monkeypatch, probes, "_as_expected"), Counter[str]()
    assert not validated("rights", load(LAYOUTS["rights"]).levels[0]).disagreed
    for one in batches:
        _, expected, _ = one.asked
        allowed, fetch = expected.reached.allowed, expected.reached.fetch
        each, every = allowed | ~allowed, (0, 17, 63)
        seen: Seen = {
            **root_entry(expected),
            "completed": (each, (0,)),
            "code": (each, (0, 4)),
            "data": (each, every),
            "teid": (expected.outcomes.teid != 0, every),
            "address": (allowed & fetch, every),
            "key": (allowed & expected.keyed, (8 - 1 - 5, 8 - 1 - 6)),
        }
        lanes.update(looked_at(one, seen))
    assert min(lanes.values()) > 10
