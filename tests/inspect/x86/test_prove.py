"""What a proof decides before any machine runs: where things lie, what is asked of the processor,
and what is left out. The proofs themselves are those of the command."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness.check.compare import Answer, Comparison, Disagreement
from harness.check.replay import Host
from harness.inspect import prove as generic
from harness.inspect.prove import Part
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.x86 import prove as module
from harness.inspect.x86.prove import PROVER
from harness.machine.errors import MachineError, Misuse
from harness.machine.machine import Processor
from harness.machine.ram import DEVICES, LARGEST_RAM, beside
from harness.machine.x86.processor import FEATURES, MachineInfo
from harness.paging import bulk
from harness.paging.address import Physical, Span
from harness.paging.bulk import End, Leaves
from harness.paging.entry import Pointer
from harness.paging.memory import BufferMemory, Mask, Memory, Words
from harness.paging.table import Root, Table
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer, Mode
from tests.inspect.spaces import layered

MIB = 1 << 20
UNIT, OWN = 4 * MIB, 8
"""What the machine needs itself: 32 MiB in eight pieces of 4 MiB, the largest page of a window."""


def listing(tables: list[int], pages: list[tuple[int, int]]) -> Leaves:
    """A space with tables and pages, each with its level, at physical addresses."""
    empty = bulk.leaves(BufferMemory(np.zeros(4096, np.uint8)), Cpu.long_mode(4, 0).roots)
    return replace(
        empty,
        physical=np.array([page for page, _ in pages], np.uint64),
        level=np.array([level for _, level in pages], np.uint8),
        end=np.full(len(pages), End.LEAF, np.uint8),
        tables=replace(empty.tables, address=np.array(tables, np.uint64)),
    )


def room(cpu: Cpu, tables: list[int], pages: list[tuple[int, int]], most: int) -> tuple[int, int]:
    return generic.room(cpu, [Part(cpu.format, cpu.roots, listing(tables, pages))], most)


# ---- where the machine's own memory is ----


@pytest.mark.parametrize("seed", range(12))
def test_the_machine_s_own_takes_as_few_tables_and_then_pages_as_it_can(seed: int) -> None:
    """Counted place by place, as it is defined."""
    source, count = random.Random(seed), 24
    end = (count + 6) * UNIT
    sizes = (1 << 12, 1 << 21, 1 << 30)
    levels = [source.choice((0, 0, 0, 1, 1, 2)) for _ in range(source.randrange(30))]
    pages = [(source.randrange(end) & -sizes[level], level) for level in levels]
    aligned = -4096 if seed % 2 else -UNIT
    tables = [source.randrange(end) & aligned for _ in range(source.randrange(1, 40))]
    cpu = Cpu.long_mode(4, source.choice(tables))

    def units(first: int, size: int) -> range:
        return range(first // UNIT, (first + size - 1) // UNIT + 1)

    def lost(own: range, spans: list[range]) -> int:
        """How many of them there are in each piece of its own, together."""
        return sum(unit in span for span in spans for unit in own)

    taken = [units(at, 1) for at in (*tables, cpu.base)]
    mapped = [units(at, sizes[level]) for at, level in pages]
    roots = [units(at, 1) for at in (cpu.base, *(root.table.address for root in cpu.roots))]
    used = [unit for span in (*taken, *mapped) for unit in span if unit < count]

    def cost(base: int) -> tuple[int, ...]:
        own = range(base, base + OWN)
        ram = max(own.stop, max(used, default=0) + 1, OWN + 1)
        return lost(own, roots), lost(own, taken), lost(own, mapped), ram, base

    *_, ram, base = min(map(cost, range(count - OWN + 1)))
    assert room(cpu, tables, pages, count * UNIT) == (base * UNIT, ram * UNIT)


def test_ram_ends_behind_the_last_that_is_used_and_behind_the_machine_s_own() -> None:
    def found(tables: list[int], pages: list[tuple[int, int]]) -> tuple[int, int]:
        return room(Cpu.long_mode(4, tables[0]), tables, pages, 24 * UNIT)

    assert found([0x1000, UNIT], []) == (2 * UNIT, 10 * UNIT)
    assert found([0x1000, 20 * UNIT], [(20 * UNIT, 0)]) == (UNIT, 21 * UNIT)
    # Of what is nowhere there is none, but RAM has to be more than the machine's own.
    assert found([24 * UNIT], []) == (0, 9 * UNIT)


def test_no_number_of_other_tables_is_kept_at_the_cost_of_the_root() -> None:
    """Which begins a piece; wherever else the machine's own is, two tables are."""
    others = [at * UNIT + 0x1000 * n for at in (8, 16) for n in (1, 2)]
    assert room(Cpu.long_mode(4, 0), [0, *others], [], 24 * UNIT) == (UNIT, 17 * UNIT)


@pytest.mark.parametrize("first", [0, 1, UNIT - 1, UNIT, 3 * UNIT, 3 * UNIT + 1])
@pytest.mark.parametrize("size", [1, UNIT - 1, UNIT, UNIT + 1, 5 * UNIT])
def test_a_piece_of_memory_is_in_every_unit_that_it_touches(first: int, size: int) -> None:
    found = generic._in_units(np.array([first], np.uint64), np.array([size], np.uint64), 4)
    touched = {octet // UNIT for octet in (*range(first, first + size, MIB), first + size - 1)}
    assert found.tolist() == [int(unit in touched) for unit in range(4)]
    both = generic._in_units(np.array([first, first], np.uint64), np.uint64(size), 4)
    assert both.tolist() == (2 * found).tolist()


def pieces(cpu: Cpu, present: list[int], table: int = 0x3000) -> int:
    """The largest window of a root table at 0 in which these entries are present."""
    memory = BufferMemory(np.zeros(1 << 16, np.uint8))
    width = cpu.format.entry_bytes
    for slot in present:
        memory.store(Physical(slot * width), width, table | 7)
    tables = replace(listing([0, table], []).tables, address=np.array([0, table], np.uint64))
    leaves = replace(listing([0, table], []), tables=tables)
    return module.largest_window(Snapshot("", cpu, memory, (memory.span,)), leaves)


def test_in_long_mode_any_hole_is_large_enough() -> None:
    assert pieces(Cpu.long_mode(4, 0), [0, 511]) == LARGEST_RAM


@pytest.mark.parametrize(
    ("present", "longest"),
    [
        ([0], 1023),
        ([1023], 1023),
        ([0, 100], 923),
        ([0, 923], 922),
        ([100, 923], 822),
        ([*range(0, 1024, 100)], 99),
        ([*range(1024)], 0),
    ],
)
def test_outside_long_mode_the_window_is_half_of_the_longest_hole(
    present: list[int], longest: int
) -> None:
    """A PDE of 32-bit paging spans 4 MiB. At the least it is what the tables need: up to the end of
    the piece in which the last lies, and 32 MiB for the machine's own."""
    cpu = Cpu.in_mode(Mode.BITS_32, 0)
    assert pieces(cpu, present) == max(longest // 2 * UNIT, UNIT + OWN * UNIT)
    assert pieces(cpu, present, 400 * UNIT) == max(longest // 2, 401 + OWN) * UNIT
    assert pieces(cpu, present, 400 * UNIT - 0x1000) == max(longest // 2, 400 + OWN) * UNIT


def test_under_pae_the_hole_is_in_what_one_pdpte_spans() -> None:
    """1 GiB in 2 MiB a slot, in the directory that has the longest one."""
    memory = BufferMemory(np.zeros(1 << 16, np.uint8))
    cpu = replace(Cpu.in_mode(Mode.PAE, 0x8000), pdptes=(0x1001, 0, 0, 0x2001))
    for at in 0x1000, 0x1000 + 8 * 300, 0x2000 + 8 * 11:
        memory.store(Physical(at), 8, 0x3007)
    made = Snapshot("", cpu, memory, (memory.span,))
    assert module.largest_window(made, listing([0x1000, 0x2000], [])) == 500 * 2 * MIB // 2


# ---- what its processor is asked ----


def info(maxphyaddr: int = 40, vendor: bytes = b"GenuineIntel", *lacks: str) -> MachineInfo:
    """A processor with everything that concerns paging but what is named."""
    leaves = {leaf: [0, 0, 0, 0] for leaf in (0, 0x8000_0008)}
    leaves |= {leaf: [0, 0, 0, 0] for leaf, _, _ in FEATURES.values()}
    for name, (leaf, register, bit) in FEATURES.items():
        leaves[leaf]["abcd".index(register)] |= (name not in lacks) << bit
    words = [int.from_bytes(vendor[at : at + 4], "little") for at in (0, 4, 8)]
    leaves[0][1:] = words[0], words[2], words[1]
    leaves[0x8000_0008][0] = maxphyaddr
    return MachineInfo({leaf: (a, b, c, d) for leaf, (a, b, c, d) in leaves.items()})


def own(cpu: Cpu, processor: MachineInfo | None = None) -> tuple[Cpu, list[str]]:
    guest: Any = SimpleNamespace(info=processor or info(), engine=SimpleNamespace(name="this"))
    return module.own(cpu, guest)


def test_a_processor_like_the_source_s_is_not_noted() -> None:
    for cpu in (
        Cpu.long_mode(4, 0x1000, maxphyaddr=40),
        Cpu.in_mode(Mode.PAE, 0x1000),
        replace(Cpu.in_mode(Mode.BITS_32, 0x1000), pse36=True),
    ):
        assert own(replace(cpu, maxphyaddr=40, page1gb=True))[1] == []


LONG = Cpu.long_mode(4, 0x1000, maxphyaddr=40)
SHORT = replace(Cpu.in_mode(Mode.BITS_32, 0x1000), maxphyaddr=40, pse36=True)


@pytest.mark.parametrize(
    ("cpu", "processor", "said"),
    [
        (LONG, info(46), "MAXPHYADDR 46,"),
        (LONG, info(40, b"GenuineIntel", "gigabyte_pages"), "no 1G pages,"),
        (replace(LONG, page1gb=False), info(), "has 1G pages,"),
        (SHORT, info(40, b"GenuineIntel", "pse36"), "no 4M pages above 4 GiB (PSE-36),"),
        (replace(SHORT, pse36=False), info(), "has 4M pages above 4 GiB (PSE-36),"),
        (LONG, info(40, b"AuthenticAMD"), "AMD's reading of entries,"),
        (replace(LONG, amd=True), info(), "Intel's reading of entries,"),
        (replace(LONG, lam=True), info(), "Linear-address masking (LAM) is off"),
        (replace(LONG, cr4=LONG.cr4 | Cr4.LASS), info(), "separation (LASS) is off in the guest"),
        (replace(LONG, c_bit=47), info(), "bit 47 (C) is clear"),
        (replace(LONG, shared_bit=46), info(), "bit 46 (shared) is clear"),
    ],
)
def test_in_what_the_guest_s_processor_differs_is_noted(
    cpu: Cpu, processor: MachineInfo, said: str
) -> None:
    (note,) = own(cpu, processor)[1]
    assert said in note


def test_what_another_mode_does_not_read_is_not_noted() -> None:
    """1G pages are those of long mode, PSE-36 is about the 4M pages of 32-bit paging."""
    assert own(replace(LONG, pse36=False))[1] == []
    assert own(replace(SHORT, page1gb=False))[1] == []


def test_the_guest_s_state_is_the_source_s_but_for_what_says_nothing_about_tables() -> None:
    source = replace(
        LONG,
        cr0=(1 << 32) - 1,
        cr3=0x1018,
        cr4=LONG.cr4 | Cr4.SMEP | Cr4.SMAP | Cr4.PCIDE | 1 << 9,
        efer=LONG.efer | 1,
        lam=True,
        c_bit=47,
    )
    found, _ = own(source, info(46, b"AuthenticAMD", "gigabyte_pages", "pse36"))
    assert found.cr0 == Cr0.PE | Cr0.WP | Cr0.PG
    every, _ = own(replace(LONG, cr0=(1 << 32) - 1 & ~Cr0.WP, cr4=(1 << 32) - 1))
    assert every.cr0 == Cr0.PE | Cr0.PG
    kept = Cr4.PSE, Cr4.PAE, Cr4.PGE, Cr4.LA57, Cr4.SMEP, Cr4.SMAP, Cr4.PKE, Cr4.PKS
    assert every.cr4 == sum(kept)
    assert found.cr4 == (source.cr4 | Cr4.SMEP | Cr4.SMAP) & ~(Cr4.PCIDE | 1 << 9)
    assert found.efer == Efer.LME | Efer.LMA | Efer.NXE
    assert (found.cr3, found.lam, found.c_bit, found.shared_bit) == (0x1000, False, None, None)
    assert (found.maxphyaddr, found.amd, found.page1gb, found.pse36) == (46, True, False, False)


@pytest.mark.parametrize(
    ("bit", "feature", "said"),
    [
        (Cr4.LA57, "la57", "LA57"),
        (Cr4.SMEP, "smep", "SMEP"),
        (Cr4.SMAP, "smap", "SMAP"),
        (Cr4.PKE, "pku", "PKU"),
        (Cr4.PKS, "pks", "PKS"),
        (0, "nx", "NX"),
    ],
)
def test_tables_that_need_what_the_processor_lacks_are_refused(
    bit: int, feature: str, said: str
) -> None:
    cpu, without = replace(LONG, cr4=LONG.cr4 | bit), info(40, b"GenuineIntel", feature)
    with pytest.raises(Misuse, match=f"this has a processor without {said}, with which"):
        own(cpu, without)
    own(cpu)
    own(replace(LONG, efer=LONG.efer & ~Efer.NXE), without)


# ---- what is put into the guest's memory ----


@dataclass
class FakeGuest:
    """Memory of a machine whose own part lies at `arena`."""

    arena: range
    size: int
    engine: Any = field(default_factory=lambda: SimpleNamespace(largest_ram=LARGEST_RAM))

    def __post_init__(self) -> None:
        self.ram = SimpleNamespace(buffer=np.zeros(self.size, np.uint8))
        self.image = SimpleNamespace(arena=self.arena)
        self.free = beside(self.arena, self.size)


def reached(memory: Memory, root: Root, but: set[Table]) -> Iterator[tuple[int, int]]:
    """Every entry of the tables that are reached from a root through none of some others, except
    the pointers to those: address and raw entry."""
    todo, seen = [root.table], {root.table}
    while todo:
        table = todo.pop()
        for slot in table.slots():
            raw = memory.load(slot.address, 8)
            assert raw is not None
            entry = table.format.decode(raw, table.level)
            if isinstance(entry, Pointer):
                if entry.table in but:
                    continue
                if entry.table not in seen:
                    seen.add(entry.table)
                    todo.append(entry.table)
            if raw:
                yield slot.address, raw


class Piecewise(BufferMemory):
    """Memory that says of each word whether it has it, as that of several files does."""

    def gather(self, addresses: Words, width: int) -> tuple[Words, Mask | None]:
        words, backed = super().gather(addresses, width)
        return words, np.ones(len(words), np.bool_) if backed is None else backed


@pytest.mark.parametrize("mark", [None, 45])
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("seed", range(6))
def test_tables_are_put_where_they_are_and_nothing_leads_to_those_left_out(
    seed: int, levels: int, mark: int | None
) -> None:
    """Ten or thirteen tables from 1 MiB on, some of which the machine has its own memory at."""
    words = layered(seed, levels).octets.view("<u8").copy()
    leads = (words & 1 != 0) & (np.arange(len(words)) < len(words) - 3 * 512)
    small = leads & (words & 0x80 == 0)
    words[small] += np.uint64(1 << 20)
    count = len(words) // 512
    plain = (BufferMemory if seed % 2 else Piecewise)(words.copy().view(np.uint8), 1 << 20)
    cpu = replace(Cpu.long_mode(levels, 1 << 20, maxphyaddr=46), c_bit=mark)
    if mark is not None:
        words[words & 1 != 0] |= np.uint64(1 << mark)
    source = (BufferMemory if seed % 2 else Piecewise)(words.view(np.uint8), 1 << 20)
    made = Snapshot("made", cpu, source, (source.span,))
    leaves = bulk.leaves(source, cpu.roots, limit=1 << 20)
    first = (1 << 20) + 0x1000 * random.Random(seed).randrange(1, count - 2)
    guest: Any = FakeGuest(range(first, first + 0x3000), 2 << 20)
    memory = BufferMemory(guest.ram.buffer)
    said = list(generic._place(PROVER, made, generic.parts_of(made), guest, memory))
    tables = zip(leaves.tables.address.tolist(), leaves.tables.level.tolist(), strict=True)
    lost, absent, unmarked = set(), set(), replace(cpu, c_bit=None).format
    for at, level in tables:
        table = Table(unmarked, Physical(at), level)
        if at in guest.image.arena:
            lost.add(table)
            assert any(f"the level-{level} table at {at:#x}, which the machine" in s for s in said)
        elif not source.span.covers(Span.of(at, table.size)):
            absent.add(table)
            assert any(f"level-{level} table at {at:#x}, which is not in m" in s for s in said)
    assert len(said) == len(lost) + len(absent)
    root = Root(Table(unmarked, Physical(1 << 20), levels - 1), cpu.roots[0].span)
    expected = dict(reached(plain, root, lost | absent))
    assert dict(reached(memory, root, set())) == expected
    assert expected or lost
    assert not guest.ram.buffer[first : first + 0x3000].any()


def test_a_root_that_cannot_be_where_it_is_is_refused() -> None:
    memory = BufferMemory(np.zeros(1 << 20, np.uint8))
    memory.store(Physical(0x1000), 8, 0x2007)
    cpu = Cpu.long_mode(4, 0x1000)
    made = Snapshot("", cpu, memory, (memory.span,))
    guest: Any = FakeGuest(range(0, 0x2000), 1 << 20)
    with pytest.raises(QuestionError, match="the root table is at 0x1000, which the machine need"):
        into = BufferMemory(guest.ram.buffer)
        list(generic._place(PROVER, made, generic.parts_of(made), guest, into))


def test_a_table_s_slots_are_as_far_apart_as_entries_are_wide() -> None:
    assert generic._slots(0x1000, 32, 8).tolist() == [0x1000, 0x1008, 0x1010, 0x1018]
    assert generic._slots(0x2000, 8, 4).tolist() == [0x2000, 0x2004]


@pytest.mark.parametrize(
    ("at", "why"),
    [
        (0x9_F000, None),
        (0xA_0000, "where a PC has no RAM"),
        (0xF_F000, "where a PC has no RAM"),
        (0x10_0000, None),
        (0x3F_F000, None),
        (0x40_0000, "which the machine needs itself"),
        (0x7F_F000, "which the machine needs itself"),
        (0x80_0000, None),
        (0xBF_F000, None),
        (0xC0_0000, "where the guest has no memory"),
    ],
)
def test_why_a_table_cannot_be_where_it_is(at: int, why: str | None) -> None:
    guest: Any = FakeGuest(range(4 * MIB, 8 * MIB), 12 * MIB)
    assert (DEVICES.start, DEVICES.stop) == (0xA_0000, 0x10_0000)
    assert PROVER.why_not_there(guest, Span.of(at, 0x1000)) == why


# ---- what has no guest ----


def test_tables_of_32_bits_are_refused_where_an_engine_is_lost_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the guest is closed; those of long mode are taken."""
    ended: list[bool] = []
    guest: Any = SimpleNamespace(close=lambda: ended.append(True))
    image = SimpleNamespace(load=lambda _: SimpleNamespace(moved=lambda _: None))
    for name, fake in {
        "processor_for": lambda *_: None,
        "largest_window": lambda *_: 0,
        "room": lambda *_: (0, 0),
        "StubImage": image,
        "Guest": lambda *_, **__: guest,
        "why_long_mode_only": lambda _: "It is lost there.",
    }.items():
        monkeypatch.setattr(module, name, fake)
    for mode in Mode:
        cpu = Cpu.in_mode(mode, 0)
        part = Part(cpu.format, (), listing([], []))
        asked = Snapshot("", cpu, BufferMemory(bytes(8)), None), [part]
        if mode in (Mode.LEVEL_4, Mode.LEVEL_5):
            assert module.new_guest(*asked, "tcg", None) is guest
        else:
            with pytest.raises(Misuse, match=r"It is lost there\. Choose another"):
                module.new_guest(*asked, "tcg", None)
    assert ended == [True, True]


@pytest.mark.parametrize(
    ("found", "agrees", "said"),
    [
        (Comparison("walk"), None, "not comparable: the tables have nothing there"),
        (Comparison("walk", not_comparable=Counter(edge=1)), None, "not comparable: edge"),
        (Comparison("walk", compared=1), True, "as expected"),
        (Comparison("walk", compared=1, quirks=Counter(odd=1)), True, "departs, as odd has it"),
        # More rows than were expected are no rows that were compared.
        (Comparison("walk", 0, 1, [Disagreement("walk", 0, None, "0", "1")]), False, "1"),
    ],
)
def test_what_an_engine_says_of_a_question_that_is_asked_again(
    found: Comparison, agrees: bool | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixtures = SimpleNamespace(compare_one=lambda *_: found)
    monkeypatch.setattr(generic, "fixtures_of", lambda _: fixtures)
    built: Any = SimpleNamespace(cpu=Cpu.long_mode(4, 0), guest=None, memory=None)
    question = Disagreement("walk", 0, None, "", "")
    assert generic._answered("tcg", "QEMU", built, question) == Answer("tcg", "QEMU", agrees, said)


def test_an_engine_that_is_lost_says_so_of_what_is_left_and_others_are_asked_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first is lost at the second question, the next does not start."""

    @contextmanager
    def built(prover: Any, snapshot: Any, engine: str, program: str) -> Iterator[str]:
        if program == "none":
            raise Misuse("there is none")
        yield engine

    def answered(name: str, who: str, built: str, one: Any) -> Answer:
        assert built == name
        if one == "deadly":
            raise MachineError("lost")
        return Answer(name, who, True, "")

    monkeypatch.setattr(generic, "_built", built)
    monkeypatch.setattr(generic, "_answered", answered)
    present = {
        name: SimpleNamespace(called=called, program=program)
        for name, called, program in (("tcg", "QEMU's TCG", "qemu"), ("bochs", "Bochs 3", "none"))
    }
    snapshot = Snapshot("made", Cpu.long_mode(4, 0), BufferMemory(bytes(0x1000)), None)
    questions: Any = ["easy", "deadly", "easy"]
    host = Host(present, {"kvm": "no /dev/kvm"})
    assert list(generic.ask_every(snapshot, questions, host)) == [
        (0, Answer("tcg", "QEMU's TCG", True, "")),
        *((n, Answer("tcg", "QEMU's TCG", None, "lost")) for n in (1, 2)),
        *((n, Answer("bochs", "Bochs 3", None, "there is none")) for n in range(3)),
        *((n, Answer("kvm", "kvm", None, "it cannot run here: no /dev/kvm")) for n in range(3)),
    ]


@pytest.mark.parametrize("has", [(True, True), (False, True), (False, False)], ids=str)
@pytest.mark.parametrize("levels", [4, 5])
def test_the_processor_that_is_most_like_the_source_s_is_taken(
    levels: int, has: tuple[bool, bool]
) -> None:
    """With all features if the engine has such a one, else as wide as that, else its usual one."""
    asked = list[Processor]()

    def named(one: Processor) -> str | None:
        asked.append(one)
        return f"number {len(asked)}" if has[len(asked) - 1] else None

    cpu = replace(Cpu.long_mode(levels, 0, maxphyaddr=46, page1gb=False), amd=True)
    found = module.processor_for(cast("Any", SimpleNamespace(processor=named)), cpu)
    wide = Processor(maxphyaddr=46, la57=levels == 5)
    alike = replace(wide, page1gb=False, amd=True)
    assert asked == [alike, wide][: 1 if has[0] else 2]
    assert found == ("number 1" if has[0] else "number 2" if has[1] else None)


def test_pdptes_are_put_where_cr3_leads_if_the_guest_has_memory_there() -> None:
    memory = BufferMemory(np.zeros(0x3000, np.uint8))
    arena = SimpleNamespace(arena=range(0x10_0000, 0x20_0000))
    largest = SimpleNamespace(largest_ram=1 << 30)
    guest: Any = SimpleNamespace(free=(range(0x2000),), image=arena, engine=largest)
    cpu = replace(Cpu.in_mode(Mode.PAE, 0x1FE0), pdptes=(0x5001, 0, 0x7001, 0x8001))
    assert module.loaded(cpu, guest, memory) == cpu
    there = [memory.load(Physical(0x1FE0 + 8 * number), 8) for number in range(4)]
    assert there == [*cpu.pdptes]
    guest.free = (range(0x1FF8),)
    with pytest.raises(QuestionError, match="the PDPTEs are at 0x1fe0, where the guest has no"):
        module.loaded(cpu, guest, memory)
    long = Cpu.long_mode(4, 0x1000)
    assert module.loaded(long, guest, memory) == long


def test_pdptes_that_every_walk_reads_are_loaded_once_without_what_tcg_sets() -> None:
    """A is set in them by TCG alone, in which they are no registers (SDM 4.4.1)."""
    memory = BufferMemory(np.zeros(0x2000, np.uint8))
    for at, raw in (0x1000, 0x5021), (0x1018, 0x6001):
        memory.store(Physical(at), 8, raw)
    cpu = replace(Cpu.in_mode(Mode.PAE, 0x1000), pdptes_checked=0xFFF0_0000_0000_0000)
    found = module.loadable(Snapshot("", cpu, memory, (memory.span,))).cpu
    assert (found.pdptes, found.pdptes_checked) == ((0x5001, 0, 0, 0x6001), None)
    memory.store(Physical(0x1000), 8, 0x5003)
    with pytest.raises(QuestionError, match=r"0x2 is reserved.*: no guest can have these tables"):
        module.loadable(Snapshot("", cpu, memory, (memory.span,)))


def test_a_space_without_pdptes_maps_nothing() -> None:
    memory = BufferMemory(np.zeros(0x2000, np.uint8))
    for checked in None, 1 << 63:
        cpu = replace(Cpu.in_mode(Mode.PAE, 0x1000), pdptes_checked=checked)
        with pytest.raises(QuestionError, match="no PDPTE at 0x1000 is present: nothing is mapped"):
            PROVER.loadable(Snapshot("", cpu, memory, None))


def test_pdptes_in_registers_are_taken_as_they_are() -> None:
    memory = BufferMemory(np.zeros(0x2000, np.uint8))
    pae = Cpu.in_mode(Mode.PAE, 0x1000)
    for cpu in LONG, SHORT, replace(pae, pdptes=(0x5001, 0, 0, 0)):
        made = Snapshot("", cpu, memory, (memory.span,))
        assert module.loadable(made) is made


def test_a_space_with_more_entries_than_can_be_proved_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = BufferMemory(np.zeros(0x4000, np.uint8))
    for at, raw in (0, 0x1007), (0x1000, 0x2007), (0x2000, 0x3007):
        memory.store(Physical(at), 8, raw)
    for slot in range(9):
        memory.store(Physical(0x3000 + 8 * slot), 8, 0x5007)
    made = Snapshot("", Cpu.long_mode(4, 0), memory, (memory.span,))
    monkeypatch.setattr(generic, "MOST", 8)
    with pytest.raises(QuestionError, match=r"has 9 entries.* no more than 8 are proved"):
        generic.prove(made, "tcg")
