"""What the processor needs of a space, planted and found."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from harness.inspect.lint import Severity, lint
from harness.inspect.snapshot import Snapshot
from harness.inspect.x86 import needs
from harness.inspect.x86.lint import NEEDS
from harness.inspect.x86.memory_type import types
from harness.inspect.x86.processor import tables_of, unseen_rights
from harness.machine.monitor import segments_in
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer, Mode
from tests.cli.commands import run
from tests.inspect.sources.kernel import arguments
from tests.inspect.sources.machines import running

PAGE = 0x1000
CODE, STACK, GDT, IDT, TSS, IST, FREE = (number * PAGE for number in range(0x10, 0x17))
P, W, U, XD = 1, 1 << 1, 1 << 2, 1 << 63
ROOT = 0x1000
"""The four tables are here and in the next three pages; pages are mapped where they are."""


def gate(target: int, ist: int = 0, kind: int = 0xE, present: int = 0x80) -> bytes:
    """An interrupt gate of 64-bit mode, as SDM volume 3A, figure 6-8, has it."""
    return struct.pack(
        "<HHBBHII", target & 0xFFFF, 8, ist, present | kind, target >> 16 & 0xFFFF, target >> 32, 0
    )


def descriptor(kind: int) -> bytes:
    """Of code or data, present, with a type; as SDM volume 3A, figure 3-8."""
    return struct.pack("<HHBBBB", 0xFFFF, 0, 0, 0x90 | kind, 0xAF, 0)


CODE_READ, CODE_READ_ACCESSED, DATA_WRITTEN = 0xA, 0xB, 0x3


@dataclass
class World:
    """A small kernel in long mode that has all it needs: tests take something away."""

    rights: dict[int, int] = field(
        default_factory=lambda: {
            CODE: P,
            STACK: P | W | XD,
            GDT: P | XD,
            IDT: P | XD,
            TSS: P | XD,
            IST: P | W | XD,
        }
    )
    gdt: list[bytes] = field(
        default_factory=lambda: [bytes(8), descriptor(CODE_READ_ACCESSED), descriptor(DATA_WRITTEN)]
    )
    idt: dict[int, bytes] = field(
        default_factory=lambda: (
            {number: gate(CODE + number) for number in range(32)} | {8: gate(CODE + 8, ist=1)}
        )
    )
    tss: dict[int, int] = field(default_factory=lambda: {4: STACK + 0x800, 36: IST + PAGE})
    registers: dict[str, int] = field(
        default_factory=lambda: {
            **{"rip": CODE, "rsp": STACK + 0x800, "cpl": 0, "gdt": GDT, "gdt_limit": 0x17},
            **{"idt": IDT, "idt_limit": 0x1FF, "tss": TSS, "cs_base": 0, "ss_base": 0},
        }
    )
    cr4: int = int(Cr4.PAE)

    def snapshot(self) -> Snapshot:
        memory = BufferMemory(np.zeros(0x20 * PAGE, np.uint8))
        words = memory.octets.view(np.uint64)
        for table in range(3):
            words[(ROOT + table * PAGE) // 8] = ROOT + (table + 1) * PAGE | P | W | U
        for page, rights in self.rights.items():
            words[(ROOT + 3 * PAGE) // 8 + page // PAGE] = page | rights
        memory.octets[GDT : GDT + 8 * len(self.gdt)] = np.frombuffer(b"".join(self.gdt), np.uint8)
        for number, octets in self.idt.items():
            memory.octets[IDT + 16 * number :][:16] = np.frombuffer(octets, np.uint8)
        for place, value in self.tss.items():
            memory.octets[TSS + place :][:8] = np.frombuffer(struct.pack("<Q", value), np.uint8)
        cpu = replace(Cpu.long_mode(4, ROOT), cr4=self.cr4)
        return Snapshot("", cpu, memory, (memory.span,), registers=self.registers)


def found(world: World) -> list[tuple[str, str, int]]:
    return [(one.rule, str(one.where), one.count) for one in needs.broken(world.snapshot())]


def span(first: int, size: int) -> str:
    return f"{first:#x}..{first + size - 1:#x}"


def test_a_kernel_that_has_all_it_needs_is_fine() -> None:
    assert found(World()) == []


def test_what_a_source_does_not_record_is_not_asked_for() -> None:
    world = World()
    for name in world.registers:
        rest = {one: value for one, value in world.registers.items() if one != name}
        assert found(World(registers=rest)) == [], name


def without(page: int) -> Callable[[World], object]:
    return lambda world: world.rights.pop(page)


def with_rights(page: int, rights: int) -> Callable[[World], object]:
    return lambda world: world.rights.update({page: rights})


def register(name: str, value: int) -> Callable[[World], object]:
    return lambda world: world.registers.update({name: value})


def one_more_descriptor(world: World) -> World:
    world.gdt.append(descriptor(CODE_READ))
    world.registers["gdt_limit"] += 8
    return world


def gdt_over_two_pages(world: World) -> None:
    """Its second descriptor is where the IDT begins."""
    world.rights[GDT] = P | W | XD
    world.registers |= {"gdt": IDT - 8, "gdt_limit": 0xF}
    world.idt[0] = descriptor(CODE_READ) * 2


def one_more_gate(world: World) -> None:
    """It lies where the TSS was."""
    del world.registers["tss"]
    world.tss.clear()
    world.idt[256] = gate(FREE)
    world.registers["idt_limit"] = 0x100F


def of_the_user(page: int, rights: int, forbids: int) -> Callable[[World], object]:
    def change(world: World) -> None:
        world.rights[page] = rights | U
        world.cr4 |= forbids

    return change


ALL = [(needs.HANDLER, f"{CODE:#x}..{CODE + 31:#x}", 32)]
PUSHED = 48

PLANTED: dict[str, tuple[Callable[[World], object], list[tuple[str, str, int]]]] = {
    "code absent": (without(CODE), [(needs.CODE, span(CODE, 1), 1), *ALL]),
    "code not executable": (with_rights(CODE, P | XD), [(needs.CODE, span(CODE, 1), 1), *ALL]),
    "code in the upper half": (
        register("rip", 0xFFFF_FFFF_8100_0001),
        [(needs.CODE, span(0xFFFF_FFFF_8100_0001, 1), 1)],
    ),
    "stack absent": (
        without(STACK),
        [(needs.STACK, span(STACK + 0x800 - PUSHED, PUSHED), 1)] * 2,
    ),
    "stack read-only": (
        with_rights(STACK, P | XD),
        [(needs.STACK, span(STACK + 0x800 - PUSHED, PUSHED), 1)] * 2,
    ),
    "stack at its end": (
        register("rsp", STACK + 0x20),
        [(needs.STACK, span(STACK - 0x10, 0x10), 1)],
    ),
    "rsp is aligned down": (register("rsp", STACK + PUSHED + 15), []),
    "rsp that is aligned down out of its page": (
        register("rsp", STACK + PUSHED - 1),
        [(needs.STACK, span(STACK - 0x10, 0x10), 1)],
    ),
    "gdt absent": (without(GDT), [(needs.GDT, span(GDT, 0x18), 1)]),
    "gdt longer than its page": (
        register("gdt_limit", 0xFFFF),
        # The pages after it are those of the IDT, the TSS and the stack.
        [(needs.GDT, span(FREE + n * PAGE, PAGE), 1) for n in range(12)],
    ),
    "gdt read-only, a descriptor not accessed": (
        one_more_descriptor,
        [(needs.GDT_READ_ONLY, span(GDT + 0x18, 8), 1)],
    ),
    "idt absent": (without(IDT), [(needs.IDT, span(IDT, 0x200), 32)]),
    "gdt read-only, in its second page alone": (
        gdt_over_two_pages,
        [(needs.GDT_READ_ONLY, span(IDT, 8), 1)],
    ),
    "idt of more than 256 gates, which no vector takes": (
        one_more_gate,
        [],
    ),
    "the last gate": (
        lambda world: (
            world.registers.update(idt_limit=0xFFF) or world.idt.update({255: gate(FREE)})
        ),
        [(needs.HANDLER, span(FREE, 1), 1)],
    ),
    "idt_limit of more than 16 bits": (
        lambda world: (
            world.registers.update(idt_limit=0x1_01FF) or world.idt.update({32: gate(FREE)})
        ),
        [],
    ),
    "idt on two pages that are absent": (
        lambda world: world.registers.update(idt=FREE + 0x800, idt_limit=0xFFF),
        [
            (needs.IDT, span(FREE + 0x800, 0x800), 128),
            (needs.IDT, span(FREE + PAGE, 0x800), 128),
        ],
    ),
    "idt that ends with its page": (
        lambda world: world.registers.update(idt=IST + PAGE - 16, idt_limit=15),
        [],
    ),
    "ist that a gate takes and the tss has no more": (
        lambda world: world.tss.pop(36),
        [(needs.STACK, span((1 << 64) - PUSHED, PUSHED), 1)],
    ),
    "gdt read-only that ends within a descriptor": (
        lambda world: one_more_descriptor(world).registers.update(gdt_limit=0x1E),
        [],
    ),
    "a gate with its reserved bits set": (
        lambda world: world.idt.update({3: gate(CODE)[:12] + b"\xff" * 4}),
        [],
    ),
    "idt that ends within a gate": (
        lambda world: world.registers.update(idt_limit=0x1FE) or world.idt.update({31: gate(FREE)}),
        [],
    ),
    "a gate that leads somewhere and is not present": (
        lambda world: world.idt.update({3: gate(FREE, present=0)}),
        [],
    ),
    "idt whose last byte is in another page": (
        lambda world: world.registers.update(idt=IST + PAGE - 15, idt_limit=15),
        [(needs.IDT, span(IST + PAGE - 15, 16), 1)],
    ),
    "idt with a gate over two pages": (
        lambda world: world.registers.update(idt=IST + PAGE - 8, idt_limit=15),
        [(needs.IDT, span(IST + PAGE - 8, 16), 1)],
    ),
    "idt up to the last address and beyond": (
        lambda world: world.registers.update(idt=(1 << 64) - 16, idt_limit=31),
        [(needs.IDT, span((1 << 64) - 16, 16), 1), (needs.IDT, span(1 << 64, 16), 1)],
    ),
    "ist that is set and no gate takes": (
        lambda world: world.tss.update({44: FREE + 0x100}),
        [(needs.STACK, span(FREE + 0x100 - PUSHED, PUSHED), 1)],
    ),
    "no stack pointer": (lambda world: world.registers.pop("rsp"), []),
    "idt at 0": (register("idt", 0), [(needs.IDT, span(0, 0x200), 32)]),
    "gdt read-only, two descriptors not accessed": (
        lambda world: one_more_descriptor(one_more_descriptor(world)),
        [(needs.GDT_READ_ONLY, span(GDT + 0x18, 0x10), 2)],
    ),
    "idt after a reset": (
        lambda world: world.registers.update(idt=0, idt_limit=0xFFFF),
        [],
    ),
    "a handler elsewhere": (
        lambda world: world.idt.update({14: gate(0xFFFF_8000_0000_1000), 15: gate(FREE, kind=0xF)}),
        [
            (needs.HANDLER, span(0xFFFF_8000_0000_1000, 1), 1),
            (needs.HANDLER, span(FREE, 1), 1),
        ],
    ),
    "a handler that is not canonical": (
        lambda world: world.idt.update({3: gate(1 << 47)}),
        [(needs.HANDLER, span(1 << 47, 1), 1)],
    ),
    "a gate that is not present": (lambda world: world.idt.update({3: bytes(16)}), []),
    "tss absent": (without(TSS), [(needs.TSS, span(TSS, 0x68), 1)]),
    "ist absent": (without(IST), [(needs.STACK, span(IST + PAGE - PUSHED, PUSHED), 1)]),
    "ist that a gate takes and the tss has not": (
        lambda world: world.idt.update({2: gate(CODE, ist=3)}),
        [(needs.STACK, span((1 << 64) - PUSHED, PUSHED), 1)],
    ),
    "rsp0 elsewhere": (
        lambda world: world.tss.update({4: FREE + 0x100}),
        [(needs.STACK, span(FREE + 0x100 - PUSHED, PUSHED), 1)],
    ),
    "pages of the user with smap": (
        of_the_user(GDT, P | W, Cr4.SMAP),
        [(needs.GDT, span(GDT, 0x18), 1)],
    ),
    "code of the user with smep": (
        of_the_user(CODE, P, Cr4.SMEP),
        [(needs.CODE, span(CODE, 1), 1), *ALL],
    ),
    "a program of the user": (
        lambda world: world.registers.update(cpl=3, rip=FREE, rsp=FREE),
        [],
    ),
    "no registers": (lambda world: world.registers.clear(), []),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_taken_away_is_found(name: str) -> None:
    change, expected = PLANTED[name]
    world = World()
    change(world)
    assert sorted(found(world)) == sorted(expected)


def test_a_gate_of_which_half_is_in_no_memory_is_none() -> None:
    """Its second half is mapped, to where the source has nothing."""
    world = World()
    world.rights[FREE] = 0x4000_0000 | P
    world.registers |= {"idt": FREE - 8, "idt_limit": 15}
    made = world.snapshot()
    made.memory.store(Physical(FREE - 8), 8, 0x8E00_0008_0000)  # type: ignore[attr-defined]
    assert list(needs.broken(made)) == []


def test_lint_says_each_with_its_rule_and_leaves_out_what_is_ignored() -> None:
    world = World()
    del world.rights[GDT], world.rights[IDT]
    broken, _ = lint(world.snapshot(), types(None))
    mine = {one.rule.name: one for one in broken if one.rule in NEEDS}
    assert mine.keys() == {needs.GDT, needs.IDT}
    assert all(one.rule.severity is Severity.ERROR for one in mine.values())
    (finding,) = mine[needs.IDT].findings
    assert finding.detail == "vectors 0 to 31: the entry is not present (4.7)"
    assert finding.slot is not None
    assert (finding.slot.level, finding.slot.index) == (0, IDT // PAGE)
    world.idt[3] = gate(FREE)
    world.rights[IDT] = P | XD
    (one,) = (one for one in needs.broken(world.snapshot()) if one.rule == needs.HANDLER)
    assert one.detail == "vector 3: the entry is not present (4.7)"
    broken, _ = lint(world.snapshot(), types(None), [needs.GDT, needs.HANDLER])
    assert not [one for one in broken if one.rule in NEEDS]


def test_every_rule_is_planted() -> None:
    planted = {rule for _, expected in PLANTED.values() for rule, _, _ in expected}
    assert planted == {rule.name for rule in NEEDS}


def test_a_32_bit_kernel_s_tables_are_read_in_its_own_form() -> None:
    memory = BufferMemory(np.zeros(0x20 * PAGE, np.uint8))
    entries = memory.octets.view(np.uint32)
    entries[ROOT // 4] = 0x2000 | P | W
    for page in (CODE, STACK, IDT, TSS):
        entries[0x2000 // 4 + page // PAGE] = page | P | W
    for number, target in ((13, CODE), (14, FREE)):
        raw = struct.pack("<HHBBH", target & 0xFFFF, 8, 0, 0x8E, target >> 16)
        memory.octets[IDT + 8 * number :][:8] = np.frombuffer(raw, np.uint8)
    entries[TSS // 4 + 1] = FREE + 0x100
    cpu = replace(Cpu.long_mode(4, ROOT), cr0=Cr0.PE | Cr0.PG | Cr0.WP, cr4=0, efer=Efer(0))
    # Linear addresses wrap at 4 GiB (SDM volume 3A, 3.3).
    registers = {
        "rip": 0x2_0010,
        "cs_base": CODE - 0x2_0000 + (1 << 32),
        "rsp": STACK + 0x100,
        "cpl": 0,
        "ss_base": 0,
    }
    tables = {"idt": IDT, "idt_limit": 0x7F, "tss": TSS}
    snapshot = Snapshot("", cpu, memory, (memory.span,), registers=registers | tables)
    assert [(one.rule, one.where.first) for one in needs.broken(snapshot)] == [
        (needs.HANDLER, FREE),
        (needs.STACK, FREE + 0x100 - 24),
    ]


def test_outside_long_mode_code_is_where_4_gib_wrap_to_and_an_odd_tss_has_no_stack() -> None:
    memory = BufferMemory(np.zeros(0x20 * PAGE, np.uint8))
    entries = memory.octets.view(np.uint32)
    entries[ROOT // 4], entries[0x2000 // 4 + TSS // PAGE] = 0x2000 | P | W, TSS | P
    registers = {"cpl": 0, "rip": 0x2_0000, "cs_base": FREE - 0x2_0000 + (1 << 32), "tss": TSS + 2}
    snapshot = Snapshot("", Cpu.in_mode(Mode.BITS_32, ROOT), memory, None, registers=registers)
    assert [(one.rule, one.where.first) for one in needs.broken(snapshot)] == [(needs.CODE, FREE)]


def lowest_asked(cpu: Cpu, **registers: int) -> int:
    """How far below the stack pointer memory is asked for, where none is mapped."""
    memory = BufferMemory(np.zeros(0x20 * PAGE, np.uint8))
    snapshot = Snapshot("", cpu, memory, None, registers={"cpl": 0, **registers})
    (need,) = needs.broken(snapshot)
    assert need.rule == needs.STACK
    return registers["rsp"] + registers.get("ss_base", 0) - need.where.first


@pytest.mark.parametrize("mode", Mode)
def test_an_exception_at_the_same_privilege_pushes_no_stack_pointer_outside_long_mode(
    mode: Mode,
) -> None:
    """EFLAGS, CS, EIP and the error code are 16 bytes (SDM volume 3A, figure 6-4); in long mode SS
    and RSP are always there (6.14.2)."""
    cpu = Cpu.in_mode(mode, ROOT)
    assert lowest_asked(cpu, rsp=0x8000) == (48 if cpu.long else 16)


def test_a_stack_at_the_end_of_4_gib_goes_on_from_there_no_further() -> None:
    memory = BufferMemory(np.zeros(0x20 * PAGE, np.uint8))
    registers = {"cpl": 0, "rsp": 8, "ss_base": 0}
    cpu = Cpu.in_mode(Mode.BITS_32, ROOT)
    (need,) = needs.broken(Snapshot("", cpu, memory, None, registers=registers))
    assert str(need.where) == "0xfffffff8..0xffffffff"


def test_the_address_of_a_handler_has_64_bits() -> None:
    """Each bit that chooses a page, set in one; figure 6-8 of SDM volume 3A."""
    for bit in range(12, 47):
        target = CODE ^ 1 << bit
        (need,) = needs.broken(World(idt={3: gate(target)}).snapshot())
        assert (need.rule, need.where.first) == (needs.HANDLER, target)


def test_a_gate_beyond_4_gib_is_none_outside_long_mode() -> None:
    memory = BufferMemory(np.zeros(0x20 * PAGE, np.uint8))
    registers = {"cpl": 0, "idt": 0xFFFF_FFF8, "idt_limit": 0xF, "rip": 0x2_0000}
    cpu = Cpu.in_mode(Mode.BITS_32, ROOT)
    found = needs.broken(Snapshot("", cpu, memory, None, registers=registers))
    gates = [(str(one.where), one.detail) for one in found if one.rule == needs.IDT]
    assert gates == [
        ("0xfffffff8..0xffffffff", "vector 0: the entry is not present (4.7)"),
        ("0x100000000..0x100000007", "vector 1: it lies beyond 4 GiB"),
    ]


def test_a_table_at_the_last_address_goes_on_no_further() -> None:
    memory = BufferMemory(np.zeros(0x20 * PAGE, np.uint8))
    registers = {"cpl": 0, "gdt": 2**64 - 8, "gdt_limit": 0x17}
    found = needs.broken(Snapshot("", Cpu.long_mode(4, ROOT), memory, None, registers=registers))
    assert [str(one.where) for one in found] == [span(2**64 - 8, 8)]


def test_what_lies_below_a_table_outside_memory_is_not_called_absent() -> None:
    snapshot = World().snapshot()
    snapshot.memory.store(Physical(ROOT), 8, 0x4000_0000 | P | W | U)  # type: ignore[attr-defined]
    found = list(needs.broken(snapshot))
    assert {one.rule for one in found} == {needs.CODE, needs.STACK, needs.GDT, needs.IDT, needs.TSS}
    assert all(one.detail.endswith("a table on the way lies outside memory") for one in found)


@pytest.mark.parametrize("mode", Mode)
def test_the_base_of_the_stack_s_segment_counts_outside_long_mode_alone(mode: Mode) -> None:
    cpu = Cpu.in_mode(mode, ROOT)
    pushed = lowest_asked(cpu, rsp=0x8000, ss_base=0x1_0000)
    assert pushed == (48 + 0x1_0000 if cpu.long else 16)


def test_the_bases_of_64_bit_code_count_as_zero_whoever_prints_them() -> None:
    text = """CS =0008 0000000000100000 ffffffff {} DPL=0 [-RA]
SS =0010 0000000000200000 ffffffff 00cf9300 DPL=0 DS   [-WA]
TR =0018 0000000000009000 00000067 00008b00 DPL=0 TSS64-busy
GDT=     0000000000007000 00000027
"""
    both = [tables_of(segments_in(text.format(flags))) for flags in ("00af9b00", "00cf9b00")]
    known = {"tss": 0x9000, "gdt": 0x7000, "gdt_limit": 0x27}
    assert both == [
        {"cs_base": 0, "ss_base": 0, **known},
        {"cs_base": 0x10_0000, "ss_base": 0x20_0000, **known},
    ]


def test_garbage_in_all_registers_costs_little() -> None:
    random = np.random.default_rng(3)
    world = World()
    for name in world.registers:
        world.registers[name] = int(random.integers(0, 1 << 64, dtype=np.uint64))
    for _ in range(20):
        for name in world.registers:
            edge = random.choice(np.array([0, 1, GDT, (1 << 64) - 1, 1 << 47, 0xFFF], np.uint64))
            world.registers[name] = int(edge)
        assert len(list(needs.broken(world.snapshot()))) < 1000


@pytest.mark.hw
def test_a_guest_without_an_idt_that_works_is_found_alive_and_dead(tmp_path: Path) -> None:
    # paging.S loads a GDT of its own and no IDT: its stack pointer is what PVH left, 0.
    words = {
        0x20_0000: 0x20_1003,
        **{0x20_1000 + 4 * page: page << 12 | 1 for page in range(0x200)},
    }
    with running(tmp_path, *arguments(tmp_path, 0, 0x20_0000, words)) as machine:
        machine.witness.waits_for("CR3=00200000", 60)
        machine.witness.ask("stop")
        core = tmp_path / "core"
        machine.witness.ask("dump-guest-memory", paging=False, protocol=f"file:{core}")
        answers = [
            run("lint", f"--{kind}", where, cwd=tmp_path)
            for kind, where in (("qmp", machine.path), ("core", core))
        ]
    for code, out, errors in answers:
        assert (code, errors) == (1, "")
        assert "error: stack-unreachable, 1 time" in out
    assert answers[0][1].splitlines()[2:6] == answers[1][1].splitlines()[2:6]


@pytest.mark.parametrize("mode", Mode)
def test_of_protection_keys_is_assumed_what_the_mode_has(mode: Mode) -> None:
    """Keys are of 4-level and 5-level paging alone (SDM 4.6.2), whatever CR4 says."""
    for bits, names in (
        (Cr4(0), []),
        (Cr4.PKE, ["PKRU"]),
        (Cr4.PKS, ["IA32_PKRS"]),
        (Cr4.PKE | Cr4.PKS, ["PKRU", "IA32_PKRS"]),
    ):
        cpu = Cpu.in_mode(mode, 0)
        said = list(unseen_rights(replace(cpu, cr4=cpu.cr4 | bits), {}, "a core"))
        told = [one.partition(" record ")[2].partition(" ")[0] for one in said]
        assert told == (names if cpu.long else [])
