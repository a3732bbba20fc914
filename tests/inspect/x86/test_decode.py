"""A reading accounts for every bit once, and what it says of a bit is what the bit does.

What bits do is not read from names: each is changed in turn, and the walker's decoder is asked.
The names are compared with the tables of the manual, as they stand there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from operator import or_

import pytest

from harness.inspect.decode import Reading, Role, levels_of, named, read
from harness.inspect.snapshot import QuestionError
from harness.inspect.x86 import decode
from harness.inspect.x86.mode import assumed, in_mode
from harness.paging.entry import Absent, Entry, Leaf, Malformed, Pointer
from harness.paging.x86.cpu import Cpu, Cr4, Efer, Mode, reserved_in_pdpte

LONG = Cpu.in_mode(Mode.LEVEL_4, 0)

SAMPLES = 60
"""Random entries a level of a state."""


def states(mode: Mode) -> Iterator[Cpu]:
    """CPUs in a mode that read entries differently."""
    base = Cpu.in_mode(mode, 0, cr4=Cr4.PSE | Cr4.PGE | Cr4.PKE | Cr4.PKS)
    yield base
    yield replace(base, maxphyaddr=52)
    yield replace(base, maxphyaddr=36, efer=base.efer & ~Efer.NXE, page1gb=False, amd=True)
    yield replace(base, maxphyaddr=32, pse36=False, cr4=base.cr4 & ~(Cr4.PGE | Cr4.PKE | Cr4.PKS))
    yield replace(base, cr4=base.cr4 & ~(Cr4.PSE | Cr4.PKS))


EVERY = [
    pytest.param(cpu, level, id=f"{mode.value}-state{number}-level{level}")
    for mode in Mode
    for number, cpu in enumerate(states(mode))
    for level in levels_of(cpu)
]
every_level = pytest.mark.parametrize(("cpu", "level"), EVERY)


def entries(cpu: Cpu, level: int) -> Iterator[int]:
    """Random entries of all kinds, few with many bits set that must not be."""
    source = random.Random(f"{cpu} {level}")
    width = 8 * cpu.format.entry_bytes
    for raw in (0, 1, 0x80, 0x81, (1 << width) - 1):
        yield raw
    for _ in range(SAMPLES):
        raw = source.getrandbits(width)
        for _ in range(source.randrange(4)):
            raw &= source.getrandbits(width) | 0x81
        yield raw
        entry = read(cpu, raw | 1, level).entry
        if isinstance(entry, Malformed):
            yield raw & ~entry.bits | 1


def union(reading: Reading, role: Role) -> int:
    return reduce(or_, (part.mask for part in named(reading, role)), 0)


def meant(cpu: Cpu, raw: int, level: int) -> Entry:
    """What the walker makes of the entry; of a PDPTE, which it sees in a register, as the CPU."""
    if level < cpu.levels:
        return cpu.format.decode(raw, level)
    try:
        roots = replace(cpu, pdptes=(raw, 0, 0, 0)).roots
    except ValueError:
        return Malformed(reserved_in_pdpte(raw, cpu.maxphyaddr))
    return Pointer(roots[0].table) if roots else Absent()


def where(entry: Entry) -> int:
    """Where the entry leads, if anywhere."""
    if isinstance(entry, Leaf):
        return entry.address
    return entry.table.address if isinstance(entry, Pointer) else 0


def check(cpu: Cpu, raw: int, level: int) -> None:
    """A reading agrees with what the walker does when any bit is changed."""
    reading, entry = read(cpu, raw, level), meant(cpu, raw, level)
    width = 8 * cpu.format.entry_bytes
    masks = [part.mask for part in reading.parts]
    assert sum(masks) == reduce(or_, masks) == (1 << width) - 1
    assert masks == sorted(masks, reverse=True)
    for part in reading.parts:
        assert part.mask == (2 << part.high) - (1 << part.low)
        assert part.meaning and part.section
    assert reading.entry == entry
    wrong = sum(raw & part.mask for part in reading.parts if part.wrong)
    assert wrong == (entry.bits if isinstance(entry, Malformed) else 0)
    if isinstance(entry, Leaf | Pointer):
        address = sum(part.value for part in named(reading, Role.ADDRESS))
        assert address == where(entry)
        for bit in range(width):
            changes(cpu, raw, level, bit, role_of(reading, bit))


def role_of(reading: Reading, bit: int) -> Role:
    (role,) = {part.role for part in reading.parts if part.mask >> bit & 1}
    return role


def changes(cpu: Cpu, raw: int, level: int, bit: int, role: Role) -> None:
    """What changing a bit of a well-formed entry does is what its role says."""
    before, after = meant(cpu, raw, level), meant(cpu, raw ^ 1 << bit, level)
    rights = False  # as of a PDPTE of PAE paging, which is no entry
    if level < cpu.levels:
        rights = cpu.format.granted(raw, level) != cpu.format.granted(raw ^ 1 << bit, level)
    if role is Role.PRESENT:
        assert isinstance(after, Absent)
    elif role is Role.RESERVED:
        assert isinstance(after, Malformed) and after.bits == 1 << bit
    elif role is Role.ADDRESS:
        assert where(before) != where(after) or isinstance(after, Malformed)
    elif role is Role.KIND:
        assert type(before) is not type(after)
    else:
        assert before == after
    assert rights == (role is Role.RIGHT) or role is Role.RESERVED


@every_level
def test_every_bit_is_accounted_for_once_and_does_what_is_said_of_it(cpu: Cpu, level: int) -> None:
    kinds = set()
    for raw in entries(cpu, level):
        check(cpu, raw, level)
        kinds.add(type(read(cpu, raw, level).entry))
    assert Absent in kinds and kinds & {Leaf, Pointer}


def layout(cpu: Cpu, raw: int, level: int) -> str:
    """The parts as the manual's figures have them, from the left."""
    return " ".join(
        f"{part.name}[{part.high}:{part.low}]"
        if part.high != part.low
        else f"{part.name}[{part.low}]"
        for part in read(cpu, raw, level).parts
    )


@pytest.mark.parametrize("mode", Mode)
def test_of_a_mode_alone_all_is_on_but_what_is_said_to_be_off(mode: Mode) -> None:
    keys = Cr4.PKE | Cr4.PKS if mode in (Mode.LEVEL_4, Mode.LEVEL_5) else 0  # SDM 4.6.2
    features = Cr4.PGE | Cr4.PSE | keys
    for off, cr4 in (("", 0), ("no_pge", Cr4.PGE), ("no_pse", Cr4.PSE), ("no_keys", keys)):
        cpu = in_mode(mode.value, {off: True} if off else {})
        assert (cpu.mode, cpu.nxe) == (mode, True)
        assert cpu.cr4 & (Cr4.PGE | Cr4.PSE | Cr4.PKE | Cr4.PKS) == features & ~cr4
    assert in_mode(mode.value, {"no_nxe": True}).efer == in_mode(mode.value, {}).efer & ~Efer.NXE
    for name in "page1gb", "pse36":
        assert getattr(in_mode(mode.value, {}), name)
        assert not getattr(in_mode(mode.value, {f"no_{name}": True}), name)


def test_the_width_of_addresses_is_assumed_where_it_is_not_given() -> None:
    cpu = in_mode(Mode.LEVEL_4.value, {})
    wide, narrow = (read(cpu, 7 | 1 << bit, 0).entry for bit in (39, 35))
    said = f"MAXPHYADDR is {cpu.maxphyaddr} (--maxphyaddr)"
    reserved = ", and with 39 or less bit 39 of the address is reserved"
    assert [*assumed(cpu, {}, [narrow, wide])] == [said + reserved]
    assert [*assumed(cpu, {}, [narrow])] == [said]
    assert [*assumed(cpu, {"maxphyaddr": cpu.maxphyaddr}, [wide])] == []


FULL = Cpu.in_mode(Mode.LEVEL_5, 0, cr4=Cr4.PSE | Cr4.PGE | Cr4.PKE)
PAE = Cpu.in_mode(Mode.PAE, 0)
SHORT = Cpu.in_mode(Mode.BITS_32, 0, cr4=Cr4.PSE | Cr4.PGE)
LOW = "PCD[4] PWT[3] U[2] W[1] P[0]"


@pytest.mark.parametrize(
    ("cpu", "raw", "level", "table", "parts"),
    [
        (
            *(FULL, 1, 0, "table 4-20"),
            "XD[63] KEY[62:59] ignored[58:52] reserved[51:40] address[39:12] R[11] ignored[10:9]"
            f" G[8] PAT[7] D[6] A[5] {LOW}",
        ),
        (
            *(FULL, 1, 1, "table 4-19"),
            "XD[63] ignored[62:52] reserved[51:40] address[39:12] R[11] ignored[10:8] PS[7]"
            f" ignored[6] A[5] {LOW}",
        ),
        (
            *(FULL, 0x81, 1, "table 4-18"),
            "XD[63] KEY[62:59] ignored[58:52] reserved[51:40] address[39:21] reserved[20:13]"
            f" PAT[12] R[11] ignored[10:9] G[8] PS[7] D[6] A[5] {LOW}",
        ),
        (
            *(FULL, 0x81, 2, "table 4-16"),
            "XD[63] KEY[62:59] ignored[58:52] reserved[51:40] address[39:30] reserved[29:13]"
            f" PAT[12] R[11] ignored[10:9] G[8] PS[7] D[6] A[5] {LOW}",
        ),
        (
            *(FULL, 1, 3, "table 4-15"),
            "XD[63] ignored[62:52] reserved[51:40] address[39:12] R[11] ignored[10:8] PS[7]"
            f" ignored[6] A[5] {LOW}",
        ),
        (
            *(FULL, 1, 4, "table 4-14"),
            "XD[63] ignored[62:52] reserved[51:40] address[39:12] R[11] ignored[10:8] PS[7]"
            f" ignored[6] A[5] {LOW}",
        ),
        (
            *(PAE, 1, 2, "table 4-8"),
            "reserved[63:52] reserved[51:40] address[39:12] ignored[11:9] reserved[8:5] PCD[4]"
            " PWT[3] reserved[2:1] P[0]",
        ),
        (
            *(PAE, 1, 0, "table 4-11"),
            "XD[63] reserved[62:52] reserved[51:40] address[39:12] ignored[11:9] G[8] PAT[7] D[6]"
            f" A[5] {LOW}",
        ),
        (
            *(SHORT, 0x81, 1, "table 4-4"),
            "address[31:22] reserved[21] address[20:13] PAT[12] ignored[11:9] G[8] PS[7] D[6] A[5]"
            f" {LOW}",
        ),
        (*(SHORT, 1, 1, "table 4-5"), f"address[31:12] ignored[11:8] PS[7] ignored[6] A[5] {LOW}"),
        (*(SHORT, 1, 0, "table 4-6"), f"address[31:12] ignored[11:9] G[8] PAT[7] D[6] A[5] {LOW}"),
        (FULL, 0x1234_5678_9ABC_DEF0, 0, "figure 4-11", "ignored[63:1] P[0]"),
    ],
)
def test_the_names_are_those_of_the_manual(
    cpu: Cpu, raw: int, level: int, table: str, parts: str
) -> None:
    assert read(cpu, raw, level).table == table
    assert layout(cpu, raw, level) == parts


@pytest.mark.parametrize(("level", "highest"), [(2, 63), (1, 62), (0, 62)])
@pytest.mark.parametrize("width", [32, 40, 51, 52])
def test_in_pae_paging_what_no_address_reaches_is_reserved_whatever_the_width(
    level: int, highest: int, width: int
) -> None:
    cpu = replace(PAE, maxphyaddr=width)
    for bit in range(width, highest + 1):
        [part] = (one for one in read(cpu, 1 << bit | 1, level).parts if one.mask >> bit & 1)
        assert part.role is Role.RESERVED
        assert (f"beyond MAXPHYADDR {width}" in part.meaning) == (bit < 52)
        assert (f"bits {highest}:52" in part.meaning) == (bit >= 52)


@pytest.mark.parametrize(
    ("change", "bits", "reason"),
    [
        ({"cr4": FULL.cr4 & ~Cr4.PKE}, 0xF << 59, "CR4.PKE=0 and CR4.PKS=0"),
        ({"cr4": FULL.cr4 & ~Cr4.PGE}, 1 << 8, "CR4.PGE=0"),
    ],
)
def test_what_the_cpu_has_switched_off_is_ignored_and_why(
    change: dict[str, int], bits: int, reason: str
) -> None:
    def part(cpu: Cpu) -> tuple[Role, bool]:
        (found,) = (part for part in read(cpu, 1, 0).parts if part.mask == bits)
        return found.role, reason in found.meaning

    assert part(FULL)[0] is not Role.IGNORED
    assert part(replace(FULL, **change)) == (Role.IGNORED, True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("enabled", "said"),
    [
        (Cr4.PKE, "key 5: PKRU decides on a user page"),
        (Cr4.PKS, "key 5: IA32_PKRS decides on a supervisor page"),
        (
            Cr4.PKE | Cr4.PKS,
            "key 5: PKRU decides on a user page, IA32_PKRS on a supervisor page",
        ),
    ],
)
def test_a_key_names_the_registers_that_decide(enabled: Cr4, said: str) -> None:
    """SDM 4.6.2: PKRU where CR4.PKE is set, IA32_PKRS where CR4.PKS is."""
    cpu = Cpu.in_mode(Mode.LEVEL_4, 0, cr4=enabled)
    (key,) = (part for part in read(cpu, 5 << 59 | 1, 0).parts if part.name == "KEY")
    assert key.meaning == said


def test_amd_has_no_hlat_paging_to_restart() -> None:
    for level in range(4):
        named_r = {
            amd: "R" in {part.name for part in read(replace(LONG, amd=amd), 0x803, level).parts}
            for amd in (False, True)
        }
        assert named_r == {False: True, True: False}


def test_reserved_bits_say_why_they_are() -> None:
    cpu = replace(FULL, efer=FULL.efer & ~Efer.NXE, page1gb=False)
    said = {part.name: part.meaning for part in read(cpu, 1 << 63 | 1 << 45 | 0x81, 2).parts}
    assert said["XD"] == "XD while EFER.NXE=0: any access faults"
    assert said["reserved"] == "beyond MAXPHYADDR 40: any access faults"
    assert said["PS"] == "PS where no page can be: any access faults"
    (part,) = (part for part in read(PAE, 3, 2).parts if part.wrong)
    assert part.meaning == "bits 2:1 of a PDPTE: loading it raises #GP(0)"
    assert part.section == "4.4.1"


def meanings(cpu: Cpu, raw: int, level: int) -> dict[str, str]:
    return {part.name: part.meaning for part in read(cpu, raw, level).parts}


def test_what_a_pdpte_says_depends_on_whether_it_is_a_register() -> None:
    """TCG looks at its bits beyond MAXPHYADDR alone, at every walk (tcg-pdptes-are-entries)."""
    assert meanings(PAE, 1 << 45 | 1, 2)["reserved"] == "bits 2:1 of a PDPTE: must be 0"
    walked = replace(PAE, pdptes_checked=(1 << 64) - (1 << 40))
    (high,) = (part for part in read(walked, 1 << 45 | 1, 2).parts if part.wrong)
    assert high.meaning == "beyond MAXPHYADDR 40: any access faults"
    (ps,) = (part for part in read(walked, 0x81, 2).parts if part.mask >> 7 & 1)
    assert (ps.role, ps.meaning) == (Role.IGNORED, "ignored: free for software")


def test_ps_is_ignored_where_there_are_no_4m_pages() -> None:
    """SDM 4.3: with CR4.PSE=0 every PDE of 32-bit paging leads to a table."""
    cpu = Cpu.in_mode(Mode.BITS_32, 0)
    for raw in (1, 0x81):
        (ps,) = (part for part in read(cpu, raw, 1).parts if part.mask == 1 << 7)
        assert (ps.name, ps.role, ps.meaning) == ("PS", Role.IGNORED, "ignored, since CR4.PSE=0")
    assert meanings(SHORT, 0x81, 1)["PS"] == "is a page"
    assert meanings(SHORT, 1, 1)["PS"] == "leads to a table"


@pytest.mark.parametrize(
    ("cpu", "raw", "level", "said"),
    [
        (FULL, 0x1234_5001, 0, ["the page is at 0x12345000"]),
        (FULL, 0x1234_5001, 1, ["the table is at 0x12345000"]),
        (FULL, 0x4000_0081, 2, ["the page is at 0x40000000"]),
        (PAE, 0x1234_5001, 2, ["the table is at 0x12345000"]),
        (
            *(SHORT, 0x0040_6081, 1),  # bits 20:13 hold 39:32 of the address
            [
                "0x400000 of the address: the page is at 0x300400000",
                "0x300000000 of the address: the page is at 0x300400000",
            ],
        ),
        (SHORT, 0x0040_6001, 1, ["the table is at 0x406000"]),
    ],
)
def test_where_an_entry_leads_is_said_of_its_address(
    cpu: Cpu, raw: int, level: int, said: list[str]
) -> None:
    found = read(cpu, raw, level)
    assert [part.meaning for part in named(found, Role.ADDRESS)] == said


@pytest.mark.parametrize(
    ("raw", "level", "said"),
    [
        (0x19, 0, "part of PAT index 3, UC after a reset: the type of the page"),
        (0x19, 1, "part of PAT index 3, UC after a reset: the type of the table it leads to"),
        (0x99, 1, "part of PAT index 3, UC after a reset: the type of the page"),
    ],
)
def test_the_bits_of_a_memory_type_say_what_it_is_the_type_of(
    raw: int, level: int, said: str
) -> None:
    found = meanings(FULL, raw, level)
    assert found["PWT"] == found["PCD"] == said


def test_single_bits_say_what_they_do_in_either_state() -> None:
    clear, set_ = meanings(FULL, 1, 0), meanings(FULL, (1 << 63) | 0x167, 0)
    assert meanings(FULL, 0, 0)["P"] == "not present: every access faults"
    assert (clear["A"], set_["A"]) == ("not used since it was cleared", "used by an access")
    assert (clear["D"], set_["D"]) == ("not written since it was cleared", "written")
    assert clear["G"] == "dropped from the TLB when CR3 is loaded"
    assert set_["G"] == "stays in the TLB when CR3 is loaded"
    assert all(clear[name] != set_[name] for name in ("W", "U", "XD"))


def test_the_section_about_pdptes_is_cited_for_what_is_reserved_in_them_alone() -> None:
    cited = {part.role for part in read(PAE, 3, 2).parts if part.section == "4.4.1"}
    assert cited == {Role.RESERVED}
    for cpu, raw, level in (FULL, 1 << 45 | 1, 1), (PAE, 1 << 45 | 1, 1):
        assert "4.4.1" not in {part.section for part in read(cpu, raw, level).parts}


@pytest.mark.parametrize("raw", [0x6, 0x1E0, 1 << 63, 0xFFFF_FFFF_FFFF_FFFE])
def test_a_pdpte_with_p_clear_is_absent_whatever_else_is_set(raw: int) -> None:
    found = read(PAE, raw, 2)
    assert found.entry == Absent()
    assert not any(part.wrong for part in found.parts)


@pytest.mark.parametrize(
    ("raw", "level", "index", "name"),
    [
        (0x01, 0, 0, "WB"),
        (0x09, 0, 1, "WT"),
        (0x11, 0, 2, "UC-"),
        (0x19, 0, 3, "UC"),
        (0x81, 0, 4, "WB"),  # bit 7 is PAT in a small page,
        (0x99, 0, 7, "UC"),
        (0x1081, 1, 4, "WB"),  # bit 12 in a large one,
        (0x89, 1, 1, "WT"),
        (0x1019, 1, 3, "UC"),  # and neither in a pointer
    ],
)
def test_the_memory_type_is_the_pats_after_a_reset(
    raw: int, level: int, index: int, name: str
) -> None:
    found = read(FULL, raw, level).memory_type
    assert found and (found.index, found.name) == (index, name)


@pytest.mark.parametrize("raw", [0, 0x18, 1 << 51 | 1 | 0x18], ids=["zero", "absent", "malformed"])
def test_what_leads_nowhere_has_no_memory_type(raw: int) -> None:
    assert read(FULL, raw, 0).memory_type is None


@pytest.mark.parametrize(
    ("cpu", "raw", "level", "sentence"),
    [
        (FULL, 1, 5, "x86-64 5-level has levels 0 to 4, not 5"),
        (PAE, 1, 3, "x86 PAE has levels 0 to 2, not 3"),
        (SHORT, 1 << 32, 0, "0x100000000 has more than the 32 bits of an entry"),
        (FULL, -1, 0, "-0x1 has more than the 64 bits"),
    ],
)
def test_what_is_no_entry_is_refused(cpu: Cpu, raw: int, level: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(cpu, raw, level)


def test_a_processor_that_cannot_be_is_refused() -> None:
    for mode, width in ("4", 53), ("4", 31), ("pae", 53):
        with pytest.raises(QuestionError, match=f"MAXPHYADDR is 32 to 52 bits, not {width}"):
            in_mode(mode, {"maxphyaddr": width})


@pytest.mark.parametrize("name", ["W", "PS", "KEY", "D", "XD"])
def test_a_name_with_the_wrong_role_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Role.ADDRESS if name != "W" else Role.USE
    monkeypatch.setitem(decode._ROLES, name, wrong)
    with pytest.raises(AssertionError):
        for raw in entries(FULL, 1):
            check(FULL, raw, 1)
