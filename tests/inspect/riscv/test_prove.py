"""Where the machine's own memory gives way to RISC-V's tables, and which state a guest takes:
before any machine runs."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness.check.validation import DEADLINE
from harness.inspect import prove as generic
from harness.inspect.prove import Part
from harness.inspect.riscv import prove
from harness.inspect.riscv.prove import own
from harness.inspect.snapshot import Snapshot
from harness.machine.errors import Misuse
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.processor import RAM_BASE, MachineInfo
from harness.paging import bulk
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu, Mode

UNIT, OWN = 4 << 20, 8
"""What the machine needs itself: 32 MiB in eight pieces of 4 MiB."""


def listing(tables: list[int], pages: list[int]) -> list[Part]:
    """A space with tables and pages of 4K at physical addresses."""
    memory = BufferMemory(np.zeros(4096, np.uint8))
    cpu = Cpu.in_mode(Mode.SV39, 0)
    empty = bulk.leaves(memory, cpu.roots)
    leaves = replace(
        empty,
        physical=np.array(pages, np.uint64),
        level=np.zeros(len(pages), np.uint8),
        end=np.full(len(pages), End.LEAF, np.uint8),
        tables=replace(empty.tables, address=np.array(tables, np.uint64)),
    )
    return [Part(cpu.format, cpu.roots, leaves)]


@pytest.mark.parametrize("seed", range(8))
def test_it_is_where_no_table_is_and_the_fewest_pages_are(seed: int) -> None:
    source, count = random.Random(seed), 24
    spans = range(RAM_BASE - 2 * UNIT, RAM_BASE + 30 * UNIT, 4096)
    tables = [source.choice(spans) for _ in range(source.randrange(1, 12))]
    pages = [source.choice(spans) for _ in range(source.randrange(12))]
    cpu = Cpu.in_mode(Mode.SV39, max(tables))
    base, size = generic.room(cpu, listing(tables, pages), count * UNIT, RAM_BASE)

    def lost(first: int, those: list[int]) -> int:
        return sum(first <= at < first + OWN * UNIT for at in those)

    def cost(first: int) -> tuple[int, int, int]:
        return lost(first, [cpu.base]), lost(first, [*tables, cpu.base]), lost(first, pages)

    places = range(RAM_BASE, RAM_BASE + (count - OWN) * UNIT + 1, UNIT)
    assert cost(base) == min(map(cost, places))
    inside = [at for at in (*tables, *pages) if RAM_BASE <= at < RAM_BASE + count * UNIT]
    assert size >= max([base + OWN * UNIT - RAM_BASE, *(at + 1 - RAM_BASE for at in inside)])


def test_what_is_below_ram_takes_no_room() -> None:
    cpu = Cpu.in_mode(Mode.SV39, RAM_BASE + 9 * UNIT)
    found = generic.room(cpu, listing([cpu.base], [0, RAM_BASE - 4096]), 24 * UNIT, RAM_BASE)
    assert found == (RAM_BASE, 10 * UNIT)
    # The page before the first is in none of the units, and the first byte of RAM is in one.
    at = np.array([RAM_BASE - 4096, RAM_BASE], np.uint64)
    assert generic._in_units(at, np.uint64(4096), 3, RAM_BASE).tolist() == [1, 0, 0]
    assert generic._in_units(at[:1], np.uint64(4097), 3, RAM_BASE).tolist() == [1, 0, 0]


def test_the_stub_stays_below_4_gib() -> None:
    every = list(range(RAM_BASE, (1 << 32) - UNIT, UNIT))
    cpu = Cpu.in_mode(Mode.SV39, RAM_BASE)
    base, _ = generic.room(cpu, listing(every, []), 3 << 30, RAM_BASE)
    assert base <= (1 << 32) - (OWN + 1) * UNIT


ADUE, PBMTE, PMM = 1 << 61, 1 << 62, 3 << 32


def guest_with(
    *extensions: str, menvcfg: int = 0, modes: tuple[str, ...] = ("sv39", "sv48")
) -> Guest:
    """What is known of a guest whose processor has these."""
    info = MachineInfo(64, frozenset(modes), 9, menvcfg, 0, "_".join(("rv64imac", *extensions)))
    engine = SimpleNamespace(maker="QEMU")
    return cast(Guest, SimpleNamespace(info=info, engine=engine))


FULL = ("svnapot", "svpbmt", "svade", "svadu")


def hart(**changed: Any) -> Cpu:
    made = Cpu.in_mode(Mode.SV39, RAM_BASE, pbmte=True, svnapot=True, sum=True, mxr=True)
    return replace(made, **changed)


def test_the_guest_takes_the_tables_and_how_they_are_read_and_no_bits_of_mstatus() -> None:
    every = guest_with(*FULL, menvcfg=ADUE | PBMTE | PMM)
    for adue, pbmte in product((0, ADUE), (0, PBMTE)):
        cpu, notes = own(hart(menvcfg=adue | pbmte), every)
        assert cpu == Cpu(hart().satp, menvcfg=adue | pbmte, svnapot=True, svade=True)
        assert notes == []


@pytest.mark.parametrize(
    ("cpu", "guest", "said"),
    [
        (hart(svnapot=False), guest_with(*FULL, menvcfg=PBMTE), "has Svnapot"),
        (hart(), guest_with("svpbmt", "svade", menvcfg=PBMTE), "has no Svnapot"),
        (hart(svrsw60t59b=True), guest_with(*FULL, menvcfg=PBMTE), "has no Svrsw60t59b"),
        (hart(), guest_with(*FULL, "svrsw60t59b", menvcfg=PBMTE), "has Svrsw60t59b"),
        (hart(), guest_with("svnapot", "svpbmt", menvcfg=PBMTE), "sets A and D"),
        (hart(svade=False), guest_with(*FULL, menvcfg=PBMTE), "does not set A and D"),
        (hart(menvcfg=PBMTE | ADUE), guest_with(*FULL, menvcfg=PBMTE), "does not set A and D"),
    ],
)
def test_what_the_guest_s_hart_has_otherwise_is_said(cpu: Cpu, guest: Guest, said: str) -> None:
    assert own(cpu, guest)[1] == [
        f"The guest's hart {said}, unlike that of the source: entries were compared as it reads"
        " them."
    ]


@pytest.mark.parametrize("register", ["menvcfg", "senvcfg"])
def test_pointers_are_not_masked_in_the_guest(register: str) -> None:
    cpu = hart(**{register: getattr(hart(), register) | 2 << 32})
    made, notes = own(cpu, guest_with(*FULL, menvcfg=PBMTE | PMM))
    assert notes == ["Pointer masking is off in the guest."]
    assert made.pmlen(user=True) == made.pmlen(user=False) == 0


def test_what_the_guest_s_hart_lacks_is_a_sentence() -> None:
    with pytest.raises(Misuse, match="QEMU has a hart without Sv39"):
        own(hart(), guest_with(*FULL, menvcfg=PBMTE, modes=("sv48",)))
    for lacking in (guest_with(*FULL), guest_with("svnapot", menvcfg=PBMTE)):
        with pytest.raises(Misuse, match="without Svpbmt, with which these tables are read"):
            own(hart(), lacking)
        assert own(hart(menvcfg=0), lacking)[0].pbmte is False


@pytest.mark.parametrize("mode", [Mode.SV32, Mode.SV39])
def test_the_guest_s_memory_is_where_the_tables_are(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(prove, "Guest", lambda xlen, **named: asked.update(named, xlen=xlen))
    cpu = Cpu.in_mode(mode, RAM_BASE)
    where = Snapshot("x", cpu, BufferMemory(np.zeros(4096, np.uint8), RAM_BASE), None)
    prove.new_guest(where, listing([cpu.base], []), "tcg", "/q/qemu-system-riscv64")
    assert asked["xlen"] == mode.xlen and asked["deadline"] == DEADLINE
    assert asked["program"] == f"/q/qemu-system-riscv{mode.xlen}"
    # The machine's own begins behind the root's table, and the stub with it.
    assert asked["image"].text.start == RAM_BASE + UNIT
    assert asked["ram_bytes"] == (OWN + 1) * UNIT
    with pytest.raises(Misuse, match="there is no engine 'kvm' for riscv"):
        prove.new_guest(where, listing([cpu.base], []), "kvm", None)
