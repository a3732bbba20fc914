"""Every address bit of every kind of entry leads where the reference says, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pytest import MonkeyPatch

from harness.check.compare import EXAMPLES
from harness.check.x86 import reach
from harness.check.x86.reach import REACH, reached, spacious
from harness.machine.errors import GuestLost
from harness.machine.ram import HIGH
from harness.machine.x86.guest import Guest
from harness.paging import bulk
from harness.paging.format import Field, Shape
from harness.paging.x86 import formats, load
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu, Mode
from tests.check.x86.machines import Spacious
from tests.check.x86.plants import Plant, in_levels


def bits(high: int, low: int) -> int:
    return sum(1 << bit for bit in range(low, high + 1))


LONG_MODE = {
    "CR3": bits(39, 12),
    "PML4E, pointer": bits(39, 12),
    "PDPTE, pointer": bits(39, 12),
    "PDPTE, leaf": bits(39, 30),
    "PDE, pointer": bits(39, 12),
    "PDE, leaf": bits(39, 21),
    "PTE, leaf": bits(39, 12),
}

# The address bits of a processor whose physical addresses have 40 (SDM 4.3 to 4.5).
ADDRESS_BITS = {
    "32": {
        "CR3": bits(31, 12),
        "PDE, pointer": bits(31, 12),
        "PDE, leaf": bits(39, 22),
        "PTE, leaf": bits(31, 12),
    },
    "pae": {
        "CR3": bits(31, 5),
        "PDPTE": bits(39, 12),
        "PDE, pointer": bits(39, 12),
        "PDE, leaf": bits(39, 21),
        "PTE, leaf": bits(39, 12),
    },
    "4": LONG_MODE,
    "5": {**LONG_MODE, "PML5E, pointer": bits(39, 12)},
}


HW = pytest.param("QEMU", marks=pytest.mark.hw)


@pytest.fixture(scope="module", params=["rules", HW])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    made: Any = Spacious() if request.param == "rules" else spacious()
    with made as guest:
        yield guest


@pytest.mark.parametrize("guest", [HW], indirect=True)
@pytest.mark.parametrize("address", [*(1 << bit for bit in range(32, 40)), (1 << 40) - 8])
def test_qemu_has_high_ram_at_the_addresses_that_it_is_named_by(guest: Guest, address: int) -> None:
    word = guest.ram.high[address - HIGH.start :][:8]
    word[:] = 1, 2, 3, 4, 5, 6, 7, 8
    assert guest.monitor.read_physical(address, 8) == word.tobytes()
    word[:] = 0


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_every_address_bit_leads_where_the_reference_says(guest: Guest, mode: Mode) -> None:
    found = list(reached(guest, [mode]))
    wrong = [one for reach in found for one in reach.comparison.disagreements]
    assert not wrong
    assert {reach.entry: reach.proven for reach in found} == ADDRESS_BITS[mode.value]


# ---- what is counted and said ----

TRIED = {
    Mode.BITS_32: (21, 21, 20, 21),
    Mode.PAE: (28, 29, 30, 22, 30),
    Mode.LEVEL_4: (29, 41, 41, 24, 41, 33, 41),
    Mode.LEVEL_5: (29, 41, 41, 41, 24, 41, 33, 41),
}
"""How many values each entry is tried with: one, and one for each of its bits from 12 up (of CR3 in
PAE paging from 5) that is not reserved where MAXPHYADDR is 40 and NXE is set (SDM 4.3 to 4.5)."""


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_each_bit_that_is_not_reserved_is_tried_and_counted(mode: Mode) -> None:
    with Spacious() as guest:
        found = list(reached(guest, [mode]))  # type: ignore[arg-type]
    assert {one.entry for one in found} == set(ADDRESS_BITS[mode.value])
    assert tuple(one.comparison.compared for one in found) == TRIED[mode]
    assert all(one.mode is mode for one in found)


class Otherwise(Spacious):
    """A guest of which one thing is otherwise."""

    def __init__(self, change: Callable[[Otherwise, Any], None]) -> None:
        super().__init__()
        self.change = change

    def tampered(self, results: Any) -> Any:
        self.change(self, results)
        return results


def denied(guest: Otherwise, results: Any) -> None:
    results["completed"][-1], results["vector"][-1], results["error"][-1] = 0, 14, 0x2


def read(guest: Otherwise, results: Any) -> None:
    results["data"][0] ^= 1


def stored(guest: Otherwise, results: Any) -> None:
    assert guest.last.physical is not None
    guest.ram.buffer[guest.last.physical] ^= 1


def accessed(guest: Otherwise, results: Any) -> None:
    guest.ram.buffer[guest.last.accessed[0]] &= 0xDF


def dirty(guest: Otherwise, results: Any) -> None:
    assert guest.last.dirty is not None
    guest.ram.buffer[guest.last.dirty] &= 0xBF


def dirty_above(guest: Otherwise, results: Any) -> None:
    guest.ram.buffer[guest.last.accessed[0]] ^= 0x40


SAYS: dict[str, tuple[Callable[[Otherwise, Any], None], str]] = {
    "denied": (
        denied,
        r"vector 14, error code 0x2; what it wrote is not there|vector 14, error code 0x2",
    ),
    "read": (read, r"it read 0x[0-9a-f]+, not the mark 0x[0-9a-f]+"),
    "stored": (stored, "what it wrote is not there"),
    "accessed": (
        accessed,
        r"slot \d+ of the level-3 table at 0x[0-9a-f]+ went from 0x\w+ to 0x\w+",
    ),
    "dirty": (dirty, r"slot \d+ of the level-\d table at 0x[0-9a-f]+ went from 0x\w+ to 0x\w+"),
    "dirty above": (
        dirty_above,
        r"slot \d+ of the level-3 table at 0x\w+ went from 0x\w+ to 0x\w+",
    ),
}
"""What is otherwise at each access, and what is said of it."""


@pytest.mark.parametrize("name", SAYS)
def test_what_an_access_leaves_otherwise_is_said_of_each_entry_that_is_tried(name: str) -> None:
    change, said = SAYS[name]
    with Otherwise(change) as guest:
        found = list(reached(guest, [Mode.LEVEL_4]))  # type: ignore[arg-type]
    for one in found:
        comparison = one.comparison
        assert comparison.disagreed == comparison.compared and one.proven == 0
        assert len(comparison.disagreements) == EXAMPLES
        for told in comparison.disagreements:
            assert re.fullmatch(said, told.observed), told.observed
            assert re.fullmatch(rf"{one.entry} holds 0x\w+: leads to 0x\w+", told.expected)
            assert (told.oracle, told.access) == (REACH, Access(Kind.WRITE, user=False))
            assert told.walk is not None and told.walk.address == told.address
            assert told.address == 0x5AA9_6B2D_7A58  # what a lower half of 47 bits has of it


def test_where_the_reference_finds_no_memory_nothing_is_accessed(monkeypatch: MonkeyPatch) -> None:
    """Nor is a table moved there: the walk ends."""
    monkeypatch.setattr("harness.check.x86.reach._Memory.backs", lambda *_: False)
    with Spacious() as guest:
        found = list(reached(guest, [Mode.LEVEL_4, Mode.PAE]))  # type: ignore[arg-type]
    ends = set[str]()
    for one in found:
        assert one.comparison.disagreed == one.comparison.compared
        for told in one.comparison.disagreements:
            nothing = "nothing was accessed, since the reference finds no memory there"
            assert told.observed == nothing
            ends.add(told.expected.partition(": ")[2].partition(" 0x")[0])
    assert {"leads to", "the walk ends at level 3", "the walk ends at level 0"} <= ends


def test_where_no_walk_begins_nothing_is_accessed(monkeypatch: MonkeyPatch) -> None:
    walk = reach._Trial._walk
    monkeypatch.setattr(
        "harness.check.x86.reach._Trial._walk",
        lambda trial, cpu: None if hasattr(trial, "path") else walk(trial, cpu),
    )
    with Spacious() as guest:
        found = list(reached(guest, [Mode.BITS_32]))  # type: ignore[arg-type]
    for one in found:
        assert one.comparison.disagreed == one.comparison.compared
        [told, *_] = one.comparison.disagreements
        assert told.observed.startswith("nothing was accessed") and told.walk is None
        assert told.expected.endswith(": no walk begins there")


def test_the_reference_of_arrays_is_asked_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    true = bulk.walk

    def other(*asked: Any) -> Any:
        found = true(*asked)
        return replace(found, physical=found.physical ^ np.uint64(0x1000))

    monkeypatch.setattr("harness.check.x86.reach.bulk.walk", other)
    with Spacious() as guest:
        found = list(reached(guest, [Mode.BITS_32]))  # type: ignore[arg-type]
    for one in found:
        assert one.comparison.disagreed == one.comparison.compared
        assert one.comparison.disagreements[0].observed.startswith("bulk.walk says 0x")


# ---- faults in the reference ----


def masked(shape: Shape, kept: int) -> Shape:
    """The shape with less of its address."""
    fields = tuple(Field(field.mask & kept, field.shift) for field in shape.address)
    return replace(shape, address=fields)


def pointers(level: int, kept: int) -> Plant:
    """Pointers of one level have less of their address."""
    return in_levels(
        lambda n, here: (
            here.changed(lambda shape: masked(shape, kept) if shape.points else shape)
            if n == level
            else here
        )
    )


def leaves(level: int, kept: int) -> Plant:
    """The same of leaves."""
    return in_levels(
        lambda n, here: (
            here.changed(lambda shape: shape if shape.points else masked(shape, kept))
            if n == level
            else here
        )
    )


def scattered(by: int) -> Plant:
    """The upper bits of the address of a 4M page are taken for others."""

    def shifted(shape: Shape) -> Shape:
        whole, upper = shape.address
        return replace(shape, address=(whole, Field(upper.mask, upper.shift + by)))

    return in_levels(
        lambda n, here: (
            here.changed(lambda shape: shape if shape.points else shifted(shape)) if n else here
        )
    )


def pdptes(kept: int) -> Plant:
    """PDPTEs of PAE paging have less of their address."""
    usual = formats.pdpte
    return lambda patch: patch.setattr(formats, "pdpte", lambda m: masked(usual(m), kept))


def pdpte_tables(patch: MonkeyPatch) -> None:
    """CR3 leads to PDPTEs at multiples of 64 bytes."""
    read = load.read_pdptes
    patch.setattr(load, "read_pdptes", lambda memory, cr3: read(memory, cr3 & ~bits(5, 0)))


def root_tables(patch: MonkeyPatch) -> None:
    """CR3 leads nowhere above 4 GiB."""
    roots: Callable[[Cpu], object] = Cpu.__dict__["roots"].func
    below = property(lambda cpu: roots(replace(cpu, cr3=cpu.cr3 & bits(31, 0))))
    patch.setattr(Cpu, "roots", below)


FAULTS: dict[str, tuple[str, str, Plant]] = {
    **{
        f"{mode}, {name} without bit {bit}": (mode, f"{name}, leaf", leaves(level, ~(1 << bit)))
        for mode, name, level, bit in (
            ("32", "PTE", 0, 31),
            ("pae", "PTE", 0, 32),
            ("pae", "PDE", 1, 39),
            ("4", "PTE", 0, 39),
            ("4", "PDE", 1, 35),
            ("5", "PDPTE", 2, 32),
        )
    },
    **{
        f"{mode}, table of a {name} below 4 GiB": (
            mode,
            f"{name}, pointer",
            pointers(level, bits(31, 0)),
        )
        for mode, names in (
            ("pae", ("PDE",)),
            ("4", ("PDE", "PDPTE", "PML4E")),
            ("5", ("PML5E",)),
        )
        for level, name in enumerate(("PDE", "PDPTE", "PML4E", "PML5E"), 1)
        if name in names
    },
    "32, 4M page: bit 13 is address bit 33": ("32", "PDE, leaf", scattered(1)),
    "32, 4M page: bit 13 is address bit 31": ("32", "PDE, leaf", scattered(-1)),
    "32, 4M page without bit 20": ("32", "PDE, leaf", leaves(1, ~(1 << 20))),
    "pae, PDPTE without bit 36": ("pae", "PDPTE", pdptes(~(1 << 36))),
    "pae, CR3 without bit 5": ("pae", "CR3", pdpte_tables),
}


@pytest.mark.parametrize("guest", [HW], indirect=True)
@pytest.mark.parametrize(("mode", "entry", "plant"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_in_the_reference_is_seen_in_its_entry_alone(
    guest: Guest, monkeypatch: MonkeyPatch, mode: str, entry: str, plant: Plant
) -> None:
    plant(monkeypatch)
    found = list(reached(guest, [Mode(mode)]))
    assert {reach.entry for reach in found if reach.comparison.disagreed} == {entry}


@pytest.mark.hw
def test_a_root_table_that_is_elsewhere_loses_the_guest(monkeypatch: MonkeyPatch) -> None:
    root_tables(monkeypatch)
    with spacious() as guest, pytest.raises(GuestLost):
        list(reached(guest, [Mode.LEVEL_4]))
