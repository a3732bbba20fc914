"""Why accesses fault, what they set where they do not, and what a fault that was seen tells."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.inspect.fault import Reproduction, _Filled, explain, explain_all, told_everywhere
from harness.inspect.snapshot import RESERVING, Given, QuestionError, Snapshot
from harness.inspect.translation import Translation, translate
from harness.inspect.x86 import entries
from harness.inspect.x86.fault import SeenFault, compare, fitting, read_code
from harness.inspect.x86.fault import told as told_of_x86
from harness.paging.address import Physical, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.x86.access import Access, Fault, Kind, Reason, Unbacked, Vector, outcome
from harness.paging.x86.cpu import Cpu, Cr4, Efer, Mode
from tests.paging.x86 import drawn
from tests.paging.x86.made import path

CPU = Cpu.in_mode(Mode.LEVEL_4, 0)


def at(cpu: Cpu, memory: BufferMemory) -> Snapshot:
    return Snapshot("made", cpu, memory, (memory.span,))


def blamed(cpu: Cpu, flags: tuple[int, ...], access: Access) -> list[int]:
    """The levels of the entries that are to blame for what the access to address 0 comes to."""
    found = explain(at(*path(cpu, *flags)), Virtual(0), access)
    return [stage.reading.level for stage in found.to_blame]


@pytest.mark.parametrize(
    ("flags", "access", "levels"),
    [
        ((7, 3, 7, 3), Access(Kind.READ, user=True), [2, 0]),
        ((5, 7, 7, 7), Access(Kind.WRITE, user=True), [3]),
        ((7, 7, 7 | 1 << 63, 7), Access(Kind.FETCH, user=True), [1]),
        ((7, 7, 0, 7), Access(Kind.READ, user=True), [1]),
        ((7, 7, 7, 7), Access(Kind.READ, user=True), []),
    ],
)
def test_the_entries_to_blame_are_those_that_withhold_what_the_access_needs(
    flags: tuple[int, ...], access: Access, levels: list[int]
) -> None:
    assert blamed(CPU, flags, access) == levels


def test_no_entry_is_to_blame_for_what_lass_denies() -> None:
    """There is no walk: the address alone decides."""
    apart = replace(CPU, cr4=CPU.cr4 | Cr4.LASS | Cr4.SMAP)
    read = Access(Kind.READ, user=False)
    for flags in ((7, 7, 7, 3), (7, 7, 0, 7)):
        found = explain(at(*path(apart, *flags)), Virtual(0), read)
        assert isinstance(found.outcome, Fault)
        assert (found.outcome.reason, found.to_blame) == (Reason.LASS_DATA, ())
        changed = [[one.name for one in remedy.settings] for remedy in found.remedies]
        assert changed[:1] == [["EFLAGS.AC"]] and ["CR4.LASS"] in changed


def test_what_a_pointer_probably_is_is_said_of_faults_that_are_known() -> None:
    read, null = Access(Kind.READ, user=True), Virtual(0x10)
    said = "a null pointer, with a member's offset of 0x10"
    assert explain(at(*path(CPU, 7, 7, 7, 0)), null, read).pointer == said
    assert explain(at(*path(CPU, 7, 7, 7, 7)), null, read).pointer is None
    cpu, memory = path(CPU, 7, 7, 7, 7)
    cut = at(cpu, BufferMemory(memory.octets[:0x4000].copy()))
    assert explain(cut, null, read).pointer == said
    of_entries = replace(cut, given=Given(frozenset({3, 2, 1}), frozenset()))
    assert explain(of_entries, null, read).pointer is None


def test_what_mends_a_table_of_which_a_part_is_there_is_not_known() -> None:
    """Another in its place would lose that part."""
    cpu, memory = path(CPU, 7, 7, 7, 7)
    last = Virtual(0x1F_F000)
    for size, changes in ((0x4800, 0), (0x4000, 1)):
        cut = at(cpu, BufferMemory(memory.octets[:size].copy()))
        found = explain(cut, last, Access(Kind.READ, user=True))
        assert (isinstance(found.outcome, Unbacked), len(found.remedies)) == (True, changes)


def test_an_access_that_is_allowed_sets_what_is_clear() -> None:
    snapshot = at(*path(CPU, 0x27, 7, 0x27, 0x27))
    noted = explain(snapshot, Virtual(0), Access(Kind.WRITE, user=True)).noted
    assert [(stage.reading.level, flag) for stage, flag in noted] == [(2, "A"), (0, "D")]
    read = explain(snapshot, Virtual(0), Access(Kind.READ, user=True)).noted
    assert [(stage.reading.level, flag) for stage, flag in read] == [(2, "A")]


def described(seen: SeenFault, access: Access) -> bool:
    """Whether the words fit an access; pushes and pops are writes and reads to an error code."""
    kind = {Kind.PUSH: Kind.WRITE, Kind.POP: Kind.READ}.get(access.kind, access.kind)
    return replace(access, kind=kind) in seen.accesses


@pytest.mark.parametrize("mode", Mode)
def test_every_fault_of_the_rules_is_possible_and_given_by_its_tables(mode: Mode) -> None:
    count = 0
    for seed in range(20):
        source = random.Random(seed)
        cpu, memory = drawn.cpu(source, mode), drawn.memory(source, mode)
        for _ in range(25):
            address, access = Virtual(drawn.address(source, mode)), drawn.access(source)
            answer = outcome(cpu, memory, address, access)
            if not isinstance(answer, Fault) or answer.vector is not Vector.PF:
                continue
            assert answer.cr2 is not None
            seen = read_code(answer.error, cpu)
            assert seen.impossible == () and seen.quirk is None and described(seen, access)
            found = compare(at(cpu, memory), seen, answer.cr2)
            assert found.giving and bool(found.explanations) <= access.implicit
            count += 1
    assert count > 100


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (0x00, []),
        (0x1D, ["P", "U", "RSVD", "I"]),
        (0x27, ["P", "W", "U", "PK"]),
        (0x8000_8081, ["P", "HLAT", "SGX", "RMP"]),
    ],
)
def test_the_bits_that_are_set_are_named(code: int, names: list[str]) -> None:
    assert [bit.name for bit in read_code(code).bits if bit.value] == names


@pytest.mark.parametrize(
    ("code", "beginning"),
    [
        (0x08, "RSVD without P"),
        (0x20, "PK without P"),
        (0x29, "PK with RSVD"),
        (0x31, "PK with I"),
        (0x13, "W with I"),
        (0x51, "SS with I"),
        (0x100, "no processor sets 0x100"),
        (0x8000, "SGX without P"),
        (0x8009, "SGX without P, or with RSVD or PK"),
        (0x8021, "SGX without P, or with RSVD or PK"),
        (0x81, "HLAT with P, without RSVD"),
        (0x87, "HLAT with P, without RSVD"),
    ],
)
def test_what_no_processor_raises_is_said_to_be_so(code: int, beginning: str) -> None:
    assert [one for one in read_code(code).impossible if one.startswith(beginning)]


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        (0x05, {Kind.READ, Kind.FETCH}),  # which of them the processor need not say
        (0x0D, {Kind.READ, Kind.FETCH}),
        (0x25, {Kind.READ}),  # keys do not concern fetches
        (0x27, {Kind.WRITE}),
        (0x15, {Kind.FETCH}),
        (0x45, {Kind.SHADOW_READ}),
        (0x47, {Kind.SHADOW_WRITE}),
    ],
)
def test_without_a_cpu_each_code_has_the_accesses_of_any(code: int, kinds: set[Kind]) -> None:
    assert {access.kind for access in read_code(code).accesses} == kinds


@pytest.mark.parametrize(("code", "known"), [("0x3", {"x86"}), ("0xd", {"x86", "riscv"})])
def test_a_code_is_of_each_architecture_that_knows_it(code: str, known: set[str]) -> None:
    """A write that was denied, with P=1; a read of an entry with reserved bits by the user, or
    RISC-V's load page fault. No fault of s390, POWER or arm64 is so called."""
    found = told_everywhere(code, 0x1000, None)
    assert found.keys() == {"x86", "riscv", "arm64", "s390", "power"}
    assert {arch for arch, one in found.items() if not isinstance(one, QuestionError)} == known


def test_a_code_in_tens_is_asked_about() -> None:
    with pytest.raises(QuestionError, match="the error code is 12: write 0x12, or 0xc if that is"):
        told_of_x86("12", None, None, ())


def test_an_address_that_cr2_never_holds_is_told_without_a_cpu() -> None:
    never = "CR2 never holds an address that is not canonical: such an access raises #GP or #SS"
    for cr2 in (1 << 63, 1 << 56, ~(1 << 56) & 2**64 - 1):  # with 57 bits neither half has them
        assert never in read_code(6, None, cr2).hints
    for cr2 in (0, 2**56 - 1, 2**64 - 2**56, 2**64 - 1):
        assert never not in read_code(6, None, cr2).hints


@pytest.mark.parametrize("code", [0x80, 0x86, 0x89, 0x8F])
def test_hlat_paging_faults_where_it_has_no_translation(code: int) -> None:
    """P=0 or a reserved bit (SDM volume 3A, 4.7)."""
    assert read_code(code).impossible == ()


@pytest.mark.parametrize("code", [0x8001, 0x8003, 0x8005, 0x8007, 0x8015])
def test_sgx_denies_what_all_else_has_let_pass(code: int) -> None:
    assert read_code(code).impossible == ()


def test_what_this_cpu_does_not_raise_is_said_to_be_so() -> None:
    blind = replace(CPU, efer=CPU.efer & ~Efer.NXE)
    (said,) = read_code(0x15, blind).impossible
    assert said.startswith("I: this CPU has CR4.SMEP=0")
    assert read_code(0x15, replace(blind, cr4=blind.cr4 | Cr4.SMEP)).impossible == ()
    (said,) = read_code(0x25, CPU).impossible
    assert said.startswith("PK: this CPU has CR4.PKE=0")
    (said,) = read_code(0x25, Cpu.in_mode(Mode.PAE, 0, cr4=Cr4.PKE)).impossible
    assert said == "PK: this CPU is not in long mode"
    for enabled in (Cr4.PKE, Cr4.PKS):
        assert read_code(0x25, Cpu.in_mode(Mode.LEVEL_4, 0, cr4=enabled)).impossible == ()
    assert read_code(0x25).impossible == ()


def test_bits_that_a_kind_of_processor_sets_are_possible() -> None:
    """HLAT (bit 7) and SGX (15) of Intel, RMP (31) of AMD."""
    for code in (0x80, 0x8001, 0x8000_0001):
        assert read_code(code).impossible == ()
    for bit in (8, 9, 14, 16, 30):
        assert read_code(1 << bit | 1).impossible != ()


def test_what_is_told_instead_are_explicit_accesses_alone() -> None:
    found = told((7, 7, 7, 7), 0)
    assert not found.giving
    assert [(one.access.kind, one.access.implicit) for one in found.instead] == [(Kind.READ, False)]


def test_a_reserved_bit_without_p_is_the_known_quirk_and_compared_as_such() -> None:
    cpu, memory = path(CPU, 0x87, 7, 7, 7)
    seen = read_code(0x0C, cpu)
    assert seen.quirk and seen.quirk.name == "tcg-reserved-bit-fault-lacks-p"
    assert compare(at(cpu, memory), seen, Virtual(0)).giving
    assert not compare(at(*path(CPU, 7, 7, 7, 7)), seen, Virtual(0)).giving


def told(flags: tuple[int, ...], code: int, cpu: Cpu = CPU, cr2: int = 0) -> Reproduction:
    state, memory = path(cpu, *flags)
    return compare(at(state, memory), read_code(code, state), Virtual(cr2))


@pytest.mark.parametrize(
    ("flags", "code", "beginning"),
    [
        ((7, 7, 7, 7), 4, "the entry was made present since; a TLB never holds one that is not"),
        ((7, 7, 7, 7), 7, "rights were given since, or a TLB still had fewer"),
        ((7, 7, 7, 0), 7, "the page was unmapped since"),
        ((7, 7, 7, 7), 0xD, "the processor has another MAXPHYADDR than 40 bits"),
    ],
)
def test_a_fault_that_the_tables_do_not_give_is_explained(
    flags: tuple[int, ...], code: int, beginning: str
) -> None:
    found = told(flags, code)
    assert not found.giving and found.instead
    assert found.explanations[0].startswith(beginning)
    assert "CR3 is 0x1000" in found.explanations[-1]


def test_of_a_page_that_is_absent_now_it_is_said_that_it_was_unmapped_where_it_was_present() -> (
    None
):
    """A fetch sets no I without SMEP and NXE (SDM 4.7), so that nothing here gives this code."""
    nothing, unmapped = (
        told((7, 7, 7, 0), code, replace(CPU, efer=CPU.efer & ~Efer.NXE)).explanations[0]
        for code in (0x14, 0x15)
    )
    assert nothing == "the tables were changed since"
    assert unmapped.startswith("the page was unmapped since")


def test_of_entries_that_were_not_given_no_machine_reads_anything_else() -> None:
    """They are not known, and lie in no memory that a machine would read as zeros or ones."""
    made = entries.snapshot("oops", [("PML4E", 0x1007)], 0x5000, {}, Mode.LEVEL_4)
    for code in 2, 6, 7, 9:
        found = compare(made, read_code(code, made.cpu), Virtual(0x5000))
        assert found.unknown and not found.giving
        assert not any("what the machine reads there" in one for one in found.explanations)


LEVELS = {Mode.BITS_32: 2, Mode.PAE: 2, Mode.LEVEL_4: 4, Mode.LEVEL_5: 5}
OUTSIDE = 0x8_0000
"""Beyond the memory of `path`."""


@pytest.mark.parametrize("mode", Mode)
def test_a_table_outside_memory_gives_what_it_gives_where_that_reads_as_zeros(mode: Mode) -> None:
    """The commonest triple fault: a table at a wrong address, on QEMU."""
    cpu = Cpu.in_mode(mode, 0)
    for depth in range(LEVELS[mode] - 1):
        state, memory = path(cpu, *[7] * LEVELS[mode])
        slot = 0x1000 * (depth + 1)
        memory.store(Physical(slot), state.format.entry_bytes, OUTSIDE | 7)
        found = compare(at(state, memory), read_code(6, state), Virtual(0x5000))
        assert [str(one.access) for one in found.giving] == ["user write"]
        (said,) = found.explanations
        name = state.format.levels[LEVELS[mode] - 1 - depth].name
        assert [stage.reading.name for stage in found.giving[0].to_blame] == [name]
        below = LEVELS[mode] - 2 - depth
        assert f"the level-{below} table to which the {name} at {slot:#x} leads lies out" in said
        assert said.endswith("at 0x80000, and reads as zeros there: QEMU, under TCG and under KVM")


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.BITS_32])
def test_a_table_outside_memory_gives_what_it_gives_where_that_reads_as_ones(mode: Mode) -> None:
    """An entry of ones has reserved bits set."""
    state, memory = path(Cpu.in_mode(mode, 0), *[7] * LEVELS[mode])
    memory.store(Physical(0x1000), 8, OUTSIDE | 7)
    found = compare(at(state, memory), read_code(0xD, state), Virtual(0))
    assert found.giving and "reads as ones there: Bochs" in found.explanations[0]
    (one,) = (explain(at(state, memory), Virtual(0), access) for access in [found.giving[0].access])
    assert [there.read for there in one.elsewhere] == ["zeros", "ones"]


def test_an_entry_by_which_no_access_or_no_write_went_is_named() -> None:
    """In a space of a machine that allows what was seen to be denied."""

    def said(code: int, *flags: int) -> list[str]:
        made = replace(at(*path(Cpu.in_mode(Mode.LEVEL_4, 0), *flags)), registers={"rip": 0})
        found = compare(made, read_code(code, made.cpu), Virtual(0)).explanations
        return [one for one in found if "went" in one]

    used = (0x27, 0x27, 0x27)
    assert said(7, *used, 0x67) == []
    assert said(5, *used, 0x27) == []
    (unwritten,) = said(7, *used, 0x27)
    assert unwritten.startswith("no write went by the PTE at 0x4000 so far, since D is clear there")
    (untouched,) = said(7, *used, 0x7)
    assert untouched.startswith("no access went by the PTE at 0x4000 so far, since A and D are")
    (above,) = said(5, 0x27, 0x7, 0x27, 0x27)
    assert above.startswith("no access went by the PDPTE at 0x2000 so far, since A is clear there")


@pytest.mark.parametrize("mode", Mode)
def test_a_root_by_which_no_access_went_may_be_another_copy(mode: Mode) -> None:
    """In tables of a machine; those that were only made were never used."""

    def said(*flags: int, ran: bool = True) -> list[str]:
        cpu, memory = path(Cpu.in_mode(mode, 0), *flags)
        size = cpu.format.entry_bytes
        memory.store(Physical(0x1000 + size), size, 0x20)  # A says nothing in an absent one
        made = at(cpu, memory)
        machine = replace(made, registers={"rip": 0} if ran else {})
        found = compare(machine, read_code(7, made.cpu), Virtual(0)).explanations
        assert found
        return [one for one in found if "another copy" in one]

    upper = LEVELS[mode] - 1
    assert said(*[0x27] * upper, 0x7) == []  # a denied access sets none in the last
    (sentence,) = said(*[7] * upper, 0x27)
    assert "A is clear in every entry of the root's, at 0x" in sentence
    assert said(*[7] * upper, 0x27, ran=False) == []


def test_an_address_is_translated_once_for_all_accesses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[bool]()

    def counted(snapshot: Snapshot, address: Virtual, linux: bool) -> Translation:
        asked.append(snapshot.cpu.lam)
        return translate(snapshot, address, linux)

    monkeypatch.setattr("harness.inspect.fault.translate", counted)
    accesses = [Access(kind, user) for kind in (Kind.READ, Kind.FETCH) for user in (True, False)]
    cpu, memory = path(CPU, 7, 3, 7, 3)
    for lam, wanted in ((False, [False]), (True, [True, False])):
        snapshot = at(replace(cpu, lam=lam), memory)
        asked.clear()
        found = explain_all(snapshot, Virtual(0), accesses)
        assert asked == wanted
        assert found == [explain(snapshot, Virtual(0), access) for access in accesses]


def test_a_root_outside_memory_is_named_and_a_fault_that_no_machine_gives_is_not_given() -> None:
    state, memory = path(CPU, 7, 7, 7, 7)
    lost = at(replace(state, cr3=OUTSIDE), memory)
    assert compare(lost, read_code(0, CPU), Virtual(0)).explanations == (
        "the root's table, to which CR3 leads, lies outside memory, at 0x80000, and reads as zeros"
        " there: QEMU, under TCG and under KVM",
    )
    found = compare(lost, read_code(7, CPU), Virtual(0))
    assert not found.giving
    assert found.explanations[0].endswith("at 0x80000: what the machine reads there decides")
    assert not [one for one in found.explanations if "unmapped" in one]


@pytest.mark.parametrize("octet", [0x00, 0xFF])
def test_memory_that_is_not_there_reads_as_one_byte_throughout(octet: int) -> None:
    filled = _Filled(BufferMemory(np.array([5, 6], np.uint64).view(np.uint8)), octet)
    assert [filled.load(Physical(address), 8) for address in (0, 8)] == [5, 6]
    for size in (4, 8):
        assert filled.load(Physical(0x1000), size) == (octet and (1 << 8 * size) - 1)
    words, backed = filled.gather(np.array([8, 0x1000, 0], np.uint64), 8)
    assert (words.tolist(), backed) == ([6, octet and (1 << 64) - 1, 5], None)


def test_an_access_that_is_decided_by_the_tables_has_no_machines_to_ask() -> None:
    for flags in (7, 7, 7, 7), (7, 7, 0, 7):
        found = explain(at(*path(CPU, *flags)), Virtual(0), Access(Kind.READ, user=True))
        assert found.elsewhere == ()


def test_an_implicit_access_gives_what_ac_spares_others() -> None:
    smap = replace(CPU, cr4=CPU.cr4 | Cr4.SMAP)
    found = told((7, 7, 7, 7), 1, replace(smap, ac=True))
    assert [one.access.implicit for one in found.giving] == [True]
    assert "with AC=0 any does" in found.explanations[0]
    plain = told((7, 7, 7, 7), 1, smap)
    assert [one.access.implicit for one in plain.giving] == [False] and not plain.explanations


def test_a_page_fault_at_an_address_that_is_not_canonical_is_none() -> None:
    (said,) = told((7, 7, 7, 7), 4, cr2=1 << 47).explanations
    assert said.startswith("CR2 never holds an address that is not canonical")


@pytest.mark.parametrize(
    ("code", "cr2", "rip", "hint"),
    [
        (0x14, 0x1000, 0x2000, "a fetch faults within the 15 bytes from RIP"),
        (0x14, 0x1000, 0xFF5, ""),
        (0x14, 0x1000, 0xFF1, "a fetch faults within the 15 bytes from RIP"),
        (0x04, 0x1000, 0x1000, "CR2 is where RIP is: a fetch that the error code does not tell"),
        (0x06, 0x1000, 0x1000, "CR2 is where RIP is: the code writes to itself"),
        (0x06, 0x1000, 0xFF2, "CR2 is where RIP is: the code writes to itself"),
        (0x06, 0x1000, 0xFF1, ""),
        (0x04, 0x1000, 0x1001, ""),
        (0x04, 0x1000, 0x5000, ""),
    ],
)
def test_rip_tells_fetches(code: int, cr2: int, rip: int, hint: str) -> None:
    hints = read_code(code, None, cr2, rip).hints
    assert [one.startswith(hint) for one in hints] == ([True] if hint else [])


def test_what_reserved_bits_may_come_of_is_said_where_no_tables_tell() -> None:
    (hint,) = read_code(0x9, None, None, None).hints
    assert hint.startswith("reserved are bits of the address beyond MAXPHYADDR, XD (bit 63) while")
    assert read_code(0x9, Cpu.long_mode(4, 0), 0x1000, None).hints == ()
    assert read_code(0x7, None, None, None).hints == ()


@pytest.mark.parametrize("code", [-1, 1 << 32])
def test_a_code_of_more_than_32_bits_is_none(code: int) -> None:
    with pytest.raises(ValueError, match="is not an error code: those have 32 bits"):
        read_code(code)


def test_the_rule_and_its_level_are_the_outcomes() -> None:
    found = explain(at(*path(CPU, 7, 3, 7, 7)), Virtual(0), Access(Kind.READ, user=True)).outcome
    assert isinstance(found, Fault)
    assert (found.reason, found.level, found.error) == (Reason.USER_DENIED, 0, 5)


@pytest.mark.parametrize("raw", [0x7, *(0x7 | 1 << bit for bit in (35, 36, 39, 51, 63))])
def test_what_another_processor_makes_of_entries_is_said_where_its_state_is_assumed(
    raw: int,
) -> None:
    """XD is reserved with NXE=0, and a bit of the address beyond MAXPHYADDR."""
    made = at(*path(CPU, 7, 7, 7, raw))
    read = Access(Kind.READ, user=True)
    assert explain(made, Virtual(0), read).otherwise == ()
    usual, wide = made.cpu, replace(made.cpu, maxphyaddr=52)
    for cpu in (usual, wide, replace(usual, efer=usual.efer & ~Efer.NXE)):
        unsure = replace(made, cpu=cpu, unsure=RESERVING)
        found = explain(unsure, Virtual(0), read)
        told = {one.instead: one.outcome for one in found.otherwise}
        reserved = isinstance(found.outcome, Fault)
        expected = set()
        if raw >> 63:
            expected.add(f"EFER.NXE={int(not cpu.nxe)}")
        for bit in 36, 39:  # no processor has fewer than 36
            if raw >> bit & 1:
                expected.add(f"MAXPHYADDR={bit} or less")
        if raw >> 51 & 1:
            expected.add("MAXPHYADDR=51 or less" if cpu is wide else "MAXPHYADDR=52 or more")
        assert told.keys() == expected
        assert all(isinstance(one, Fault) != reserved for one in told.values())
        only = explain(replace(unsure, unsure=frozenset(["efer"])), Virtual(0), read)
        assert {one.instead for one in only.otherwise} == {
            one for one in expected if one.startswith("EFER")
        }


def test_the_narrowest_processor_that_takes_an_address_is_named() -> None:
    made = at(*path(CPU, 7, 7, 7, 7 | 1 << 39 | 1 << 37))
    narrow = replace(made, cpu=replace(made.cpu, maxphyaddr=37), unsure=RESERVING)
    (other,) = explain(narrow, Virtual(0), Access(Kind.READ, user=True)).otherwise
    assert (other.instead, other.assumed) == ("MAXPHYADDR=40 or more", "MAXPHYADDR=37")


def test_a_bit_that_marks_memory_as_encrypted_is_no_width_of_addresses() -> None:
    """As SEV has it, above the bits that are left for addresses."""
    made = replace(at(*path(CPU, 7, 7, 7, 7 | 1 << 47)), unsure=frozenset(["maxphyaddr"]))
    read = Access(Kind.READ, user=True)
    (other,) = explain(made, Virtual(0), read).otherwise
    assert other.instead == "MAXPHYADDR=48 or more"
    marked = replace(made, cpu=replace(made.cpu, c_bit=47))
    assert explain(marked, Virtual(0), read).otherwise == ()
    wrong = at(*path(marked.cpu, 7, 7, 7, 7 | 1 << 47 | 1 << 41))
    (other,) = explain(replace(wrong, unsure=made.unsure), Virtual(0), read).otherwise
    assert other.instead == "MAXPHYADDR=42 or more"


def test_what_is_assumed_is_what_gives_a_fault_that_was_seen() -> None:
    """The widest MAXPHYADDR that does, and NXE where none does."""
    seen = read_code(0xD, CPU, 0, None)  # a user read that meets reserved bits
    far = replace(at(*path(CPU, 7, 7, 7, 7 | 1 << 38)), unsure=RESERVING)
    found = fitting(far, seen, Virtual(0))
    assert (found.cpu.maxphyaddr, found.cpu.nxe) == (38, True)
    assert found.notes[0].startswith("Assumed: MAXPHYADDR=38, the widest with which these")
    sure = replace(far, unsure=frozenset(["efer"]))
    assert fitting(sure, seen, Virtual(0)) is sure
    top = replace(at(*path(CPU, 7, 7, 7, 5 | 1 << 51)), unsure=RESERVING)
    found = fitting(top, read_code(7, CPU, 0, None), Virtual(0))  # of W: no bit is reserved
    assert found.cpu.maxphyaddr == 52
    off = replace(at(*path(CPU, 7, 7, 7, 7 | 1 << 63)), unsure=RESERVING)
    found = fitting(off, seen, Virtual(0))
    assert (found.cpu.maxphyaddr, found.cpu.nxe) == (CPU.maxphyaddr, False)
    (note,) = found.notes
    assert note.startswith("Assumed: EFER.NXE=0, with which these entries give the fault; with 1")
    both = replace(at(*path(CPU, 7, 7, 7, 7 | 1 << 63 | 1 << 38)), unsure=RESERVING)
    note = fitting(both, seen, Virtual(0)).notes[0]
    assert note.endswith("; with EFER.NXE=0 they give it, too (--efer).")
    for sure in (replace(off, unsure=frozenset()), replace(off, unsure=frozenset(["maxphyaddr"]))):
        assert fitting(sure, seen, Virtual(0)) is sure


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Kind.READ, ()),
        (Kind.PUSH, ("a supervisor push raises #PF with error code 0xb there, so that another",)),
        (Kind.FETCH, ()),
    ],
)
def test_an_access_that_is_named_is_told_from_the_one_that_was_seen(
    kind: Kind, said: tuple[str, ...]
) -> None:
    """The stack of a processor whose NXE is not set yet."""
    cpu = replace(CPU, efer=CPU.efer & ~Efer.NXE)
    made = at(*path(cpu, 7, 7, 7, 3 | 1 << 63))
    seen = read_code(0x9, cpu, 0, None)
    found = compare(made, seen, Virtual(0), named=[Access(kind, user=False)])
    assert found.giving
    assert [one[: len(start)] for one, start in zip(found.explanations, said, strict=True)] == [
        *said
    ]
    plain = at(*path(CPU, 7, 7, 7, 3 | 1 << 63))
    allowed = compare(plain, seen, Virtual(0), named=[Access(Kind.READ, user=False)])
    assert allowed.explanations[0].startswith("a supervisor read is allowed there, so that")
