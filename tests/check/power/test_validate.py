"""Layouts for POWER: built, compared with the machine, and faults of the reference found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.check.layouts import LayoutError, divided, load, parse, shipped
from harness.check.power import probes, validate
from harness.check.power.cases import alone
from harness.check.power.layouts import build
from harness.check.power.space import GuestSpace
from harness.check.validation import SpaceReport
from harness.machine.power.guest import Guest
from harness.machine.power.processor import MachineInfo
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import End
from harness.paging.memory import BigEndianMemory, BufferMemory
from harness.paging.power.access import Access, Interrupt, Kind
from harness.paging.power.bulk import Outcomes, outcomes
from tests.check.tampered import Seen, looked_at, noted, root_entry
from tests.machine.power.present import QEMU, why_absent

LAYOUTS = {path.stem: path for path in shipped("power")}
PAGES = {"smallest": 2, "dense": 2048, "sparse": 120, "malformed": 2}
"""How many pages some layouts have."""

INFO = MachineInfo(0x4E1200, 0, 0, True)
ALL = (1 << 64) - 1


def validated(name: str) -> SpaceReport:
    """What comes of a shipped layout; a skip where there is no machine for it."""
    if reason := why_absent():
        pytest.skip(reason)
    return validate.validate(load(LAYOUTS[name]), 4, program=QEMU)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_built(name: str) -> None:
    layout = load(LAYOUTS[name])
    tables, frames = divided(layout)
    memory = BigEndianMemory(np.zeros(tables.size, np.uint8), tables.first)
    cpu = build(layout, 4, INFO, memory)
    assert cpu.format.name == f"POWER radix {64 if '64k' in name else 4}K"
    leaves = bulk.leaves(memory, cpu.roots)
    pages = leaves.take(leaves.end == End.LEAF)
    assert (pages.physical >= np.uint64(frames.first)).all()
    assert len(pages.virtual) == PAGES.get(name, len(pages.virtual))
    assert {int(page) >> 62 for page in pages.virtual} == {0, 3}


@pytest.mark.hw
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_machine_agrees(name: str) -> None:
    report = validated(name)
    assert report.disagreed == 0, report.disagreements[0]
    assert report.compared > 1000
    assert not report.count("news")
    nowhere = {"the page has no memory behind it"} if name == "malformed" else set()
    assert set(report.count("not_comparable")) == nowhere
    assert not report.count("quirks")


def _with(**changes: Callable[[Any], Any]) -> Callable[..., Outcomes]:
    """The reference with some of its arguments changed."""

    def wrong(cpu: Any, memory: Any, address: Any, kind: Any, user: Any) -> Outcomes:
        given = {"cpu": cpu, "kind": kind, "user": user}
        given |= {name: change(given[name]) for name, change in changes.items()}
        return outcomes(given["cpu"], memory, address, given["kind"], given["user"])

    return wrong


def _found(change: Callable[[Outcomes], Outcomes]) -> Callable[..., Outcomes]:
    """The reference with its answers changed."""
    return lambda *asked: change(outcomes(*asked))


def _elsewhere(found: Outcomes) -> Outcomes:
    leaf = found.walks.level == 0
    physical = found.walks.physical ^ np.where(leaf, 0x1000, 0).astype(np.uint64)
    return replace(found, walks=replace(found.walks, physical=physical))


def _beyond(found: Outcomes) -> Outcomes:
    leaf = found.walks.level == 0
    physical = found.walks.physical | np.where(leaf, 1 << 40, 0).astype(np.uint64)
    return replace(found, walks=replace(found.walks, physical=physical))


def _status(before: int, after: int) -> Callable[..., Outcomes]:
    return _found(
        lambda found: replace(
            found, status=np.where(found.status == before, after, found.status).astype(np.uint32)
        )
    )


def _as_data(found: Outcomes) -> Outcomes:
    interrupt = np.where(
        found.interrupt == Interrupt.INSTRUCTION_STORAGE, Interrupt.DATA_STORAGE, found.interrupt
    )
    return replace(found, interrupt=interrupt.astype(np.uint16))


PLANTED: dict[str, Callable[..., Outcomes]] = {
    "AMR plays no part": _with(cpu=lambda cpu: replace(cpu, amr=0)),
    "IAMR plays no part": _with(cpu=lambda cpu: replace(cpu, iamr=0)),
    "AMR and IAMR are each other": _with(cpu=lambda cpu: replace(cpu, amr=cpu.iamr, iamr=cpu.amr)),
    "all of the user's pages are kept from others": _with(
        cpu=lambda cpu: replace(cpu, amr=ALL, iamr=ALL)
    ),
    "R and C are left to the other side": _with(
        cpu=lambda cpu: replace(cpu, sets_marks=not cpu.sets_marks)
    ),
    "the processes are each other": _with(
        cpu=lambda cpu: replace(cpu, quadrant0=cpu.quadrant3, quadrant3=cpu.quadrant0)
    ),
    "process 0 has no tree": _with(cpu=lambda cpu: replace(cpu, quadrant3=0)),
    "problem state and the others are each other": _with(user=np.logical_not),
    "a fetch is a read": _with(kind=lambda kind: np.where(kind == 2, 0, kind).astype(np.uint8)),
    "a write is a read": _with(kind=lambda kind: np.where(kind == 1, 0, kind).astype(np.uint8)),
    "the neighbouring frame": _found(_elsewhere),
    "a frame that is beyond all memory": _found(_beyond),
    "SRR1 says protection of fetches": _status(1 << 28, 1 << 27),
    "DSISR does not say that it was a store": _status(1 << 27 | 1 << 25, 1 << 27),
    "DSISR says protection of what is not there": _status(1 << 30, 1 << 27),
    "a failed fetch is a data storage interrupt": _found(_as_data),
}
"""Faults of the reference."""


@pytest.mark.hw
@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_of_the_reference_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "outcomes", PLANTED[fault])
    assert validated("rights").disagreed > 10


@pytest.mark.hw
def test_one_size_of_page_tables_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.paging.power import bulk as arrays

    monkeypatch.setattr(arrays, "OTHER_SIZE", 0)
    assert validated("malformed").disagreed > 10


@pytest.mark.hw
def test_r_and_c_that_are_never_set_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    unset = _found(lambda found: replace(found, sets=np.zeros_like(found.sets)))
    monkeypatch.setattr(probes, "outcomes", unset)
    report = validated("rights")
    sets_marks = tuple(map(int, report.qemu.split("."))) < (8,)
    assert (report.disagreed > 10) == sets_marks


@pytest.mark.hw
def test_a_process_0_without_a_tree_is_in_the_process_table_all_the_same() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU) as guest:
        space = GuestSpace(guest, 12)
        state = replace(validate.state_of(space.cpu, Span.of(0, 4096)), window=None)
        case, frames = alone(3 << 62, Access(Kind.READ, user=False)), (Span.of(0, 4096),)
        report = probes.ask_guest(guest, state, space.cpu, space.memory, frames, case)
    assert (report.compared, report.disagreed) == (1, 0), report.disagreements


@pytest.mark.hw
def test_tables_that_change_behind_the_harness_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = probes.ask_guest

    def and_writes(guest: Any, state: Any, cpu: Any, memory: BufferMemory, *rest: Any) -> Any:
        found = asked(guest, state, cpu, memory, *rest)
        memory.store(cpu.roots[1].table.slot(5000).address, 8, 1 << 8)
        return found

    monkeypatch.setattr(probes, "ask_guest", and_writes)
    report = validated("smallest")
    assert report.disagreed == 1
    assert report.disagreements[0].oracle == "table bytes"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('arch = "power"\nlevels = [3]', r"tables of power have 4 levels, not 3"),
        (
            'arch = "power"\nlevels = [4]\n[cpu]\npages = "16K"',
            r"choose one of 4K, 64K|did you mean",
        ),
        (
            'arch = "power"\nlevels = [4]\n[[map]]\nvirtual = 0\nsize = "4K"\nrights = "k"',
            r"letters r, w, u, x",
        ),
    ],
)
def test_what_no_layout_is_is_refused(text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        parse(f'title = "wrong"\n{text}\n', "wrong.toml")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ('size = "4K"\nrights = "w"', "cannot give write alone"),
        ('size = "64K"', "pages of POWER radix 4K have 4K, 2M, 1G"),
        ('size = "4K"\nphysical = 0x100_0000', "lie the machine's own"),
    ],
)
def test_pages_that_cannot_be_are_refused(part: str, said: str) -> None:
    text = f'title = "wrong"\narch = "power"\nlevels = [4]\n[[map]]\nvirtual = 0\n{part}\n'
    layout = parse(text, "wrong.toml")
    tables, _ = divided(layout)
    memory = BigEndianMemory(np.zeros(tables.size, np.uint8), tables.first)
    with pytest.raises(LayoutError, match=said):
        build(layout, 4, INFO, memory)
    assert not memory.octets.any()


@pytest.mark.hw
def test_every_field_of_a_result_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, lanes = noted(monkeypatch, probes, "_as_expected"), Counter[str]()
    assert not validated("rights").disagreed
    for one in batches:
        expected, _ = one.asked
        allowed, fetch = expected.reached.allowed, expected.reached.fetch
        each, every = allowed | ~allowed, (0, 17, 63)
        seen: Seen = {
            **root_entry(expected),
            "completed": (each, (0,)),
            "vector": (each, (7, 8, 9)),
            "data": (each, every),
            "dar": (~fetch, every),
            "dsisr": (~fetch, (30, 27, 25, 19)),
            "srr0": (fetch, every),
            "srr1": (~allowed & fetch, (63 - 33, 63 - 35, 63 - 44, 63 - 45)),
        }
        lanes.update(looked_at(one, seen))
    assert min(lanes.values()) > 20
