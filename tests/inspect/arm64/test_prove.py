"""What a proof of arm64's tables decides before any machine runs: where things lie with two formats
of tables, and what its processor is asked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.inspect import prove as generic
from harness.inspect.arm64.prove import PROVER, own
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.machine.arm64.processor import RAM_BASE, MachineInfo
from harness.machine.errors import Misuse
from harness.machine.ram import around
from harness.paging.address import Physical, Span
from harness.paging.arm64.cpu import Cpu, Features, Half
from harness.paging.memory import BufferMemory
from harness.paging.table import Root
from harness.paging.walk import leaves

UNIT, OWN = 4 << 20, 8
"""What the machine needs itself: 32 MiB in eight pieces of 4 MiB."""

TABLE, PAGE, BLOCK, AF = 3, 3, 1, 1 << 10
LOW = Half("4K", 39, RAM_BASE)
HIGH = Half("16K", 36, RAM_BASE + 0x4000)
PAIR = Cpu.of(LOW, HIGH)


def snapshot(cpu: Cpu, words: dict[int, int], size: int = 1 << 20) -> Snapshot:
    memory = BufferMemory(np.zeros(size, np.uint8), RAM_BASE)
    for at, raw in words.items():
        memory.store(Physical(at), 8, raw)
    return Snapshot("made", cpu, memory, (memory.span,))


def test_each_half_s_pages_are_of_its_own_sizes() -> None:
    """A block of 1 GiB in the lower half, one of 32 MiB in the upper: at level 1 of a format of its
    own each, neither of which is the other's size."""
    made = snapshot(
        PAIR,
        {
            RAM_BASE: RAM_BASE + 0x1000 | TABLE,
            RAM_BASE + 0x1000: RAM_BASE + 32 * UNIT | BLOCK | AF,  # 2 MiB
            RAM_BASE + 0x4000: RAM_BASE + 40 * UNIT | BLOCK | AF,  # 32 MiB
        },
    )
    parts = generic.parts_of(made)
    assert [(part.format.name, part.leaves.total) for part in parts] == [
        ("arm64 4K 39-bit", 1),
        ("arm64 16K 36-bit", 1),
    ]
    # Tables are in unit 0: the machine's own begins behind it, and RAM ends with the larger block.
    assert generic.room(PAIR, parts, 64 * UNIT, RAM_BASE) == (RAM_BASE + UNIT, 48 * UNIT)
    assert generic.room(PAIR, parts[:1], 64 * UNIT, RAM_BASE) == (RAM_BASE + UNIT, 33 * UNIT)


class FakeGuest:
    """RAM from `RAM_BASE` on with an arena in it."""

    def __init__(self, arena: range, size: int) -> None:
        self.ram = SimpleNamespace(buffer=np.zeros(size, np.uint8), base=RAM_BASE, size=size)
        self.image = SimpleNamespace(arena=arena)
        self.free = around(arena, range(RAM_BASE, RAM_BASE + size))
        self.engine = SimpleNamespace(largest_ram=size, maker="QEMU")


def reached(memory: BufferMemory, root: Root) -> list[tuple[int, int | None]]:
    """What is mapped, and where it leads."""
    return [(one.address, one.physical) for one in leaves(memory, [root])]


def test_tables_of_two_formats_are_placed_and_what_leads_elsewhere_is_unlinked() -> None:
    """One table is the lower half's at level 1 and the upper half's at level 0: what the lower one
    loses stays lost."""
    shared = RAM_BASE + 0x8000
    words = {
        RAM_BASE: shared | TABLE,
        shared: RAM_BASE + 0xC000 | TABLE,
        shared + 8: RAM_BASE + 0x4_0000 | TABLE,  # where the machine has its own
        RAM_BASE + 0xC000: RAM_BASE + 0xF000 | PAGE | AF,
        HIGH.root: shared | TABLE,
        HIGH.root + 8: 0x900_0000 | TABLE,  # where no RAM is
    }
    made = snapshot(PAIR, words)
    guest: Any = FakeGuest(range(RAM_BASE + 0x4_0000, RAM_BASE + 0x5_0000), 1 << 20)
    into = BufferMemory(guest.ram.buffer, RAM_BASE)
    said = list(generic._place(PROVER, made, generic.parts_of(made), guest, into))
    assert [one.partition(" (")[0] for one in said] == [
        f"the level-3 table at {RAM_BASE + 0x4_0000:#x}, which the machine needs itself",
        "the level-3 table at 0x9000000, where virt has no RAM",
    ]
    low, high = PAIR.roots
    assert reached(into, low) == [(0, RAM_BASE + 0xF000)]
    assert reached(into, high) == [(high.span.first, RAM_BASE + 0xC000)]
    assert into.load(Physical(shared + 8), 8) == 0


@pytest.mark.parametrize("high", [False, True])
def test_a_root_that_cannot_be_where_it_is_is_refused(high: bool) -> None:
    far = RAM_BASE + (64 << 20)
    half = replace(HIGH if high else LOW, root=far)
    cpu = Cpu.of(LOW, half) if high else Cpu.of(half, HIGH)
    made = Snapshot("", cpu, BufferMemory(np.zeros(128 << 20, np.uint8), RAM_BASE), None)
    guest: Any = FakeGuest(range(RAM_BASE + (1 << 20), RAM_BASE + (2 << 20)), 4 << 20)
    into = BufferMemory(guest.ram.buffer, RAM_BASE)
    with pytest.raises(QuestionError, match=f"the root table is at {far:#x}, where the guest has"):
        list(generic._place(PROVER, made, generic.parts_of(made), guest, into))


def test_more_entries_than_are_proved_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of both halves count together."""
    words = {RAM_BASE: RAM_BASE | BLOCK | AF, HIGH.root: RAM_BASE | BLOCK | AF}
    monkeypatch.setattr(generic, "MOST", 2)
    assert sum(part.leaves.total for part in generic.parts_of(snapshot(PAIR, words))) == 2
    monkeypatch.setattr(generic, "MOST", 1)
    with pytest.raises(QuestionError, match=r"the space has 2 entries.*no more than 1 are proved"):
        generic.parts_of(snapshot(PAIR, words))


# ---- what its processor is asked ----

MMFR0 = 6 | 2 << 4 | 1 << 28 | 2 << 20
"""PARange of 52 bits, ASIDs of 16, TGran4 and TGran16 with LPA2, TGran64."""
MMFR1 = 2 | 1 << 12 | 3 << 20
"""HAFDBS, HPDS, PAN3."""
MMFR2 = 1 << 4 | 1 << 16 | 1 << 28 | 1 << 60
"""UAO, LVA, TTST, E0PD."""
ALL = Features()


def guest_with(mmfr0: int = MMFR0, mmfr1: int = MMFR1, mmfr2: int = MMFR2) -> Any:
    info = MachineInfo(mmfr=(mmfr0, mmfr1, mmfr2, 0, 0), isar0=0, sctlr=2**64 - 1)
    return SimpleNamespace(info=info, engine=SimpleNamespace(maker="QEMU"))


def test_a_processor_like_the_source_s_is_not_noted() -> None:
    for cpu in (
        PAIR,
        Cpu.of(LOW, HIGH, ha=True, hd=True, wxn=True, epan=True),
        Cpu.of(replace(LOW, hpd=True, tbi=True, tbid=True), replace(HIGH, e0pd=True)),
        Cpu.of(Half("4K", 52, 0), None, ds=True, output_bits=52),
        Cpu.of(None, Half("64K", 52, 0), output_bits=52),
    ):
        taken, notes = own(cpu, guest_with())
        assert notes == []
        assert (taken.low, taken.high, taken.tcr, taken.sctlr) == (
            cpu.low,
            cpu.high,
            cpu.tcr,
            cpu.sctlr,
        )


def test_what_the_source_s_processor_lacks_is_off_in_the_guest() -> None:
    """TCR_EL1's bits for what it lacks are ignored there, and would not be in the guest."""
    plain = replace(ALL, output_bits=40, lpa2=frozenset(), lva=False, hafdbs=0, hpds=False)
    plain = replace(plain, pan=1, e0pd=False, tbid=False)
    everything = 1 << 39 | 1 << 40 | 3 << 41 | 3 << 51 | 3 << 55 | 1 << 59
    tcr = Cpu.of(LOW, HIGH, output_bits=48).tcr | everything
    source = Cpu(LOW.root, HIGH.root, tcr, sctlr=1 | 1 << 57, features=plain)
    taken, notes = own(source, guest_with())
    assert (taken.low, taken.high, notes) == (source.low, source.high, [])
    assert not taken.tcr & everything and taken.tcr >> 32 & 7 == 2  # IPS says 40 bits
    assert not (taken.sets_access_flag or taken.epan or taken.is_wide("4K"))
    assert [one.table.format for one in taken.roots] == [one.table.format for one in source.roots]


def test_how_the_guest_s_processor_differs_is_noted() -> None:
    def said(cpu: Cpu, guest: Any) -> list[str]:
        return [note.partition(", unlike")[0] for note in own(cpu, guest)[1]]

    low = replace(LOW, hpd=True, e0pd=True)
    assert said(
        Cpu.of(low, HIGH, ha=True, hd=True, epan=True, output_bits=48),
        guest_with(MMFR0 & ~15 | 2, 1 | 1 << 20, 0),
    ) == [
        "The guest's processor has 40 bits of physical addresses in the lower half",
        "The guest's processor lacks HPD (lower half)",
        "The guest's processor lacks E0PD (lower half)",
        "The guest's processor has 40 bits of physical addresses in the upper half",
        "The guest's processor keeps no dirty state",
        "The guest's processor lacks EPAN",
    ]
    large = Cpu.of(Half("64K", 48, 0), None, output_bits=48, features=replace(ALL, output_bits=48))
    assert said(large, guest_with()) == ["The guest's processor reads 52 bits in 64K entries"]


@pytest.mark.parametrize(
    ("cpu", "guest", "why"),
    [
        (PAIR, guest_with(mmfr0=5), "has a granule of 16K in TG1, which the processor lacks"),
        (Cpu.of(Half("4K", 20, 0), None), guest_with(mmfr2=0), "has T0SZ 44, which faults or is"),
        (Cpu.of(Half("4K", 52, 0), None, ds=True), guest_with(mmfr0=6 | 1 << 20), "has T0SZ 12"),
    ],
)
def test_tables_that_the_guest_s_processor_cannot_have_are_refused(
    cpu: Cpu, guest: Any, why: str
) -> None:
    with pytest.raises(Misuse, match=f"QEMU's processor cannot have these tables: .*{why}"):
        own(cpu, guest)


def test_why_a_table_cannot_be_where_it_is() -> None:
    guest: Any = FakeGuest(range(RAM_BASE, RAM_BASE + UNIT), 4 * UNIT)
    for at, why in (
        (RAM_BASE - 0x1000, "where virt has no RAM"),
        (RAM_BASE, "which the machine needs itself"),
        (RAM_BASE + UNIT, None),
        (RAM_BASE + 4 * UNIT, "where the guest has no memory"),
    ):
        assert PROVER.why_not_there(guest, Span.of(at, 0x1000)) == why
