"""What accesses come to: the order of checks, error codes, and rights (SDM 4.6 and 4.7)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from harness.paging.address import Virtual
from harness.paging.x86.access import Access, Allowed, Kind, Unbacked, never_withheld, outcome
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer, Mode
from tests.paging.x86.made import (
    ALL,
    FETCH,
    NX,
    PS,
    READ,
    RW,
    US,
    WRITE,
    A,
    D,
    G,
    P,
    comes_to,
    implicit,
    memory,
    path,
    supervisor,
    user,
)

MODES = list(Mode)
LONG = [Mode.LEVEL_4, Mode.LEVEL_5]
LEVELS = {Mode.BITS_32: 2, Mode.PAE: 2, Mode.LEVEL_4: 4, Mode.LEVEL_5: 5}
PUSH, POP = Kind.PUSH, Kind.POP


def at(cpu: Cpu, access: Access, *flags: int) -> str:
    """What an access to address 0x10 comes to, through entries with the given flags."""
    return comes_to(*path(cpu, *flags), 0x10, access)


def flags(mode: Mode, **at_level: int) -> list[int]:
    """Entries that allow all, from the root down, but for those given by level: l0, l1, ..."""
    return [at_level.get(f"l{level}", ALL) for level in reversed(range(LEVELS[mode]))]


# ---- the order of checks ----


@pytest.mark.parametrize(
    ("mode", "address", "canonical"),
    [
        (Mode.LEVEL_4, 0x0000_7FFF_FFFF_FFFF, True),
        (Mode.LEVEL_4, 0x0000_8000_0000_0000, False),
        (Mode.LEVEL_4, 0xFFFF_7FFF_FFFF_FFFF, False),
        (Mode.LEVEL_4, 0xFFFF_8000_0000_0000, True),
        (Mode.LEVEL_4, 0x8000_0000_0000_0000, False),
        (Mode.LEVEL_4, 0x7FFF_FFFF_FFFF_FFFF, False),
        (Mode.LEVEL_5, 0x0000_8000_0000_0000, True),
        (Mode.LEVEL_5, 0x00FF_FFFF_FFFF_FFFF, True),
        (Mode.LEVEL_5, 0x0100_0000_0000_0000, False),
        (Mode.LEVEL_5, 0xFEFF_FFFF_FFFF_FFFF, False),
        (Mode.LEVEL_5, 0xFF00_0000_0000_0000, True),
    ],
)
def test_the_canonical_form_comes_first(mode: Mode, address: int, canonical: bool) -> None:
    cpu = Cpu.in_mode(mode, 0x1000)
    for kind in Kind:
        text = comes_to(cpu, memory({}), address, supervisor(kind))
        assert text.endswith("NOT_PRESENT" if canonical else "NOT_CANONICAL")


@pytest.mark.parametrize("mode", LONG)
def test_a_stack_reference_that_is_not_canonical_raises_ss_and_any_other_gp(mode: Mode) -> None:
    cpu = Cpu.in_mode(mode, 0x1000)
    for kind in Kind:
        vector = "#SS" if kind in (PUSH, POP) else "#GP"
        for access in (user(kind), supervisor(kind)):
            text = comes_to(cpu, memory({}), 1 << 62, access)
            assert text == f"{vector}(00) NOT_CANONICAL"


@pytest.mark.parametrize("mode", LONG)
def test_cr2_does_not_change_where_the_address_is_not_canonical(mode: Mode) -> None:
    answer = outcome(Cpu.in_mode(mode, 0), memory({}), Virtual(1 << 62), user(READ))
    assert (getattr(answer, "cr2", 0), getattr(answer, "level", 0)) == (None, None)


@pytest.mark.parametrize("mode", MODES)
def test_cr2_is_the_address_of_a_page_fault(mode: Mode) -> None:
    cpu, where = path(Cpu.in_mode(mode, 0), 0)
    answer = outcome(cpu, where, Virtual(0x1234), user(READ))
    assert getattr(answer, "cr2", None) == 0x1234


@pytest.mark.parametrize(
    ("mode", "level"), [(mode, level) for mode in MODES for level in range(LEVELS[mode])]
)
def test_presence_is_checked_at_each_level_and_the_fault_tells_which(
    mode: Mode, level: int
) -> None:
    cpu, where = path(Cpu.in_mode(mode, 0), *flags(mode, **{f"l{level}": RW | US}))
    answer = outcome(cpu, where, Virtual(0x10), supervisor(READ))
    assert (getattr(answer, "level", None), getattr(answer, "error", None)) == (level, 0)


@pytest.mark.parametrize(
    ("mode", "level"),
    [(mode, level) for mode in (Mode.PAE, *LONG) for level in range(LEVELS[mode])],
)
def test_reserved_bits_are_checked_at_each_level_and_imply_p(mode: Mode, level: int) -> None:
    cpu, where = path(Cpu.in_mode(mode, 0), *flags(mode, **{f"l{level}": ALL | 1 << 45}))
    answer = outcome(cpu, where, Virtual(0x10), supervisor(READ))
    assert (getattr(answer, "level", None), getattr(answer, "error", None)) == (level, 0b1001)


@pytest.mark.parametrize("mode", [Mode.PAE, *LONG])
def test_the_first_level_that_fails_from_the_top_ends_the_walk(mode: Mode) -> None:
    cpu, malformed = Cpu.in_mode(mode, 0), ALL | 1 << 45
    text = at(cpu, supervisor(READ), *flags(mode, l1=RW, l0=malformed))
    assert text == "#PF(00) NOT_PRESENT"
    text = at(cpu, supervisor(READ), *flags(mode, l1=malformed, l0=0))
    assert text == "#PF(09) RESERVED"


@pytest.mark.parametrize("mode", MODES)
def test_an_upper_entry_that_denies_the_user_is_not_asked_above_one_that_is_not_present(
    mode: Mode,
) -> None:
    text = at(Cpu.in_mode(mode, 0), user(READ), *flags(mode, l1=P | RW, l0=0))
    assert text == "#PF(04) NOT_PRESENT"


@pytest.mark.parametrize("mode", [Mode.PAE, *LONG])
def test_an_upper_xd_is_not_asked_above_a_reserved_bit(mode: Mode) -> None:
    text = at(Cpu.in_mode(mode, 0), user(FETCH), *flags(mode, l1=ALL | NX, l0=ALL | 1 << 45))
    assert text == "#PF(1d) RESERVED"


@pytest.mark.parametrize("mode", [Mode.PAE, *LONG])
@pytest.mark.parametrize("level", [0, 1])
def test_xd_is_reserved_without_nxe(mode: Mode, level: int) -> None:
    cpu = Cpu.in_mode(mode, 0, efer=0)
    denying = flags(mode, **{f"l{level}": ALL | NX})
    for access in (user(READ), user(FETCH)):
        assert at(cpu, access, *denying) == "#PF(0d) RESERVED"


def test_an_entry_without_memory_behind_it_is_an_answer_of_its_own() -> None:
    cpu = Cpu.in_mode(Mode.LEVEL_4, 0x1000)
    where = memory({0x1000: 0x10_0007})
    assert comes_to(cpu, where, 0x10, user(READ)) == "unknown"
    answer = outcome(cpu, where, Virtual(0x10), user(READ))
    assert isinstance(answer, Unbacked) and answer.slot.address == 0x10_0000


# ---- error codes ----


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [READ, WRITE, FETCH, PUSH, POP])
def test_w_and_u_describe_the_access_whatever_failed(mode: Mode, kind: Kind) -> None:
    cpu = Cpu.in_mode(mode, 0, efer=0)
    writes = 2 * (kind in (WRITE, PUSH))
    for access, bit in ((supervisor(kind), 0), (user(kind), 4)):
        assert at(cpu, access, 0) == f"#PF({writes + bit:02x}) NOT_PRESENT"
    assert at(cpu, user(kind), *flags(mode, l0=P)) == f"#PF({writes + 5:02x}) USER_DENIED"


@pytest.mark.parametrize(
    ("mode", "smep", "nxe", "told"),
    [
        (Mode.BITS_32, False, False, False),
        (Mode.BITS_32, False, True, False),
        (Mode.BITS_32, True, False, True),
        (Mode.PAE, False, False, False),
        (Mode.PAE, False, True, True),
        (Mode.PAE, True, False, True),
        (Mode.LEVEL_4, False, False, False),
        (Mode.LEVEL_4, False, True, True),
        (Mode.LEVEL_5, True, False, True),
    ],
)
def test_i_tells_a_fetch_with_smep_or_with_pae_and_nxe(
    mode: Mode, smep: bool, nxe: bool, told: bool
) -> None:
    cpu = Cpu.in_mode(mode, 0, cr4=Cr4.SMEP if smep else 0, efer=Efer.NXE if nxe else 0)
    assert at(cpu, user(FETCH), 0) == f"#PF({4 + 16 * told:02x}) NOT_PRESENT"
    assert at(cpu, user(READ), 0) == "#PF(04) NOT_PRESENT"


def test_an_implicit_access_from_user_mode_is_a_supervisors_in_the_error_code() -> None:
    cpu = Cpu.in_mode(Mode.LEVEL_4, 0)
    assert at(cpu, implicit(READ), 0) == "#PF(00) NOT_PRESENT"
    assert at(cpu, implicit(WRITE), 0) == "#PF(02) NOT_PRESENT"


# ---- rights ----


@pytest.mark.parametrize(
    ("mode", "level"), [(mode, level) for mode in MODES for level in range(LEVELS[mode])]
)
@pytest.mark.parametrize(
    ("without", "access", "text"),
    [
        (P | RW, user(READ), "#PF(05) USER_DENIED"),
        (P | RW, user(WRITE), "#PF(07) USER_DENIED"),
        (P | RW, supervisor(WRITE), "reaches 0x8010"),
        (P | US, user(WRITE), "#PF(07) WRITE_DENIED"),
        (P | US, user(READ), "reaches 0x8010"),
        (P | US, supervisor(WRITE), "#PF(03) WRITE_DENIED"),
        (P | US, supervisor(PUSH), "#PF(03) WRITE_DENIED"),
        (P | US, implicit(WRITE), "#PF(03) WRITE_DENIED"),
        (P | US, supervisor(POP), "reaches 0x8010"),
    ],
)
def test_a_right_that_any_level_withholds_is_withheld(
    mode: Mode, level: int, without: int, access: Access, text: str
) -> None:
    assert at(Cpu.in_mode(mode, 0), access, *flags(mode, **{f"l{level}": without})) == text


@pytest.mark.parametrize(
    ("mode", "level"),
    [(mode, level) for mode in (Mode.PAE, *LONG) for level in range(LEVELS[mode])],
)
def test_xd_at_any_level_denies_fetches_and_nothing_else(mode: Mode, level: int) -> None:
    cpu, denying = Cpu.in_mode(mode, 0), flags(mode, **{f"l{level}": ALL | NX})
    assert at(cpu, user(FETCH), *denying) == "#PF(15) EXECUTE_DENIED"
    assert at(cpu, supervisor(FETCH), *denying) == "#PF(11) EXECUTE_DENIED"
    for kind in (READ, WRITE, PUSH, POP):
        assert at(cpu, user(kind), *denying) == "reaches 0x8010"


def test_in_32_bit_paging_every_page_that_can_be_read_can_be_executed() -> None:
    cpu = Cpu.in_mode(Mode.BITS_32, 0)
    assert at(cpu, user(FETCH), ALL, P | US) == "reaches 0x8010"


@pytest.mark.parametrize("mode", MODES)
def test_a_pdpte_denies_nothing_and_the_top_level_of_the_others_does(mode: Mode) -> None:
    """The PDPTE of `path` has P alone."""
    assert at(Cpu.in_mode(mode, 0), user(WRITE), *flags(mode)) == "reaches 0x8010"


@pytest.mark.parametrize("mode", MODES)
def test_without_wp_the_supervisor_writes_to_read_only_pages_and_the_user_does_not(
    mode: Mode,
) -> None:
    cpu = Cpu.in_mode(mode, 0, cr0=0)
    for page in (P, P | US):
        for access in (supervisor(WRITE), supervisor(PUSH), implicit(WRITE)):
            assert at(cpu, access, *flags(mode, l0=page)) == "reaches 0x8010"
    assert at(cpu, user(WRITE), *flags(mode, l0=P | US)) == "#PF(07) WRITE_DENIED"


@pytest.mark.parametrize("mode", MODES)
def test_smep_denies_the_supervisor_fetches_from_user_pages(mode: Mode) -> None:
    cpu = Cpu.in_mode(mode, 0, cr4=Cr4.SMEP)
    assert at(cpu, supervisor(FETCH), *flags(mode)) == "#PF(11) SMEP"
    assert at(cpu, supervisor(FETCH), *flags(mode, l1=P | RW)) == "reaches 0x8010"
    assert at(cpu, user(FETCH), *flags(mode)) == "reaches 0x8010"
    assert at(cpu, supervisor(READ), *flags(mode)) == "reaches 0x8010"
    without = Cpu.in_mode(mode, 0)
    assert at(without, supervisor(FETCH), *flags(mode)) == "reaches 0x8010"


def test_the_supervisor_writes_whatever_entries_say_unless_wp_is_set() -> None:
    """SDM 4.6.1: writing is the one right that an entry may not be able to withhold."""
    for mode in MODES:
        assert never_withheld(Cpu.in_mode(mode, 0, cr0=0)) == RW
        assert never_withheld(Cpu.in_mode(mode, 0, cr0=Cr0.WP)) == 0


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (user(READ), "user read"),
        (supervisor(FETCH), "supervisor fetch"),
        (implicit(WRITE), "implicit supervisor write"),
        (user(Kind.SHADOW_READ), "user shadow stack read"),
        (supervisor(Kind.SHADOW_WRITE), "supervisor shadow stack write"),
    ],
)
def test_an_access_is_printed_as_people_say_it(access: Access, said: str) -> None:
    assert str(access) == said


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wp", [False, True])
@pytest.mark.parametrize(("kind", "error"), [(READ, 1), (WRITE, 3), (PUSH, 3), (POP, 1)])
def test_smap_denies_the_supervisor_data_of_user_pages_but_with_ac(
    mode: Mode, wp: bool, kind: Kind, error: int
) -> None:
    cpu = Cpu.in_mode(mode, 0, cr0=Cr0.WP if wp else 0, cr4=Cr4.SMAP)
    with_ac = replace(cpu, ac=True)
    assert at(cpu, supervisor(kind), *flags(mode)) == f"#PF({error:02x}) SMAP"
    assert at(with_ac, supervisor(kind), *flags(mode)) == "reaches 0x8010"
    assert at(cpu, supervisor(kind), *flags(mode, l0=P | RW)) == "reaches 0x8010"
    assert at(cpu, user(kind), *flags(mode)) == "reaches 0x8010"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ac", [False, True])
def test_smap_denies_implicit_accesses_whatever_ac_says(mode: Mode, ac: bool) -> None:
    cpu = replace(Cpu.in_mode(mode, 0, cr4=Cr4.SMAP), ac=ac)
    assert at(cpu, implicit(READ), *flags(mode)) == "#PF(01) SMAP"
    assert at(cpu, implicit(WRITE), *flags(mode)) == "#PF(03) SMAP"
    assert at(cpu, implicit(READ), *flags(mode, l0=P)) == "reaches 0x8010"


@pytest.mark.parametrize("mode", MODES)
def test_smap_does_not_touch_fetches_and_ac_nothing_but_smap(mode: Mode) -> None:
    smap = Cpu.in_mode(mode, 0, cr4=Cr4.SMAP)
    assert at(smap, supervisor(FETCH), *flags(mode)) == "reaches 0x8010"
    with_ac = replace(Cpu.in_mode(mode, 0, cr4=Cr4.SMAP | Cr4.SMEP), ac=True)
    assert at(with_ac, supervisor(FETCH), *flags(mode)) == "#PF(11) SMEP"
    assert at(with_ac, supervisor(WRITE), *flags(mode, l0=P | US)) == "#PF(03) WRITE_DENIED"
    assert at(with_ac, user(READ), *flags(mode, l0=P | RW)) == "#PF(05) USER_DENIED"


def test_smap_comes_before_the_right_to_write() -> None:
    cpu = Cpu.in_mode(Mode.LEVEL_4, 0, cr4=Cr4.SMAP)
    assert at(cpu, supervisor(WRITE), *flags(Mode.LEVEL_4, l0=P | US)) == "#PF(03) SMAP"


def test_an_implicit_access_is_no_users_and_no_fetch() -> None:
    for kind, by_user in product(Kind, (False, True)):
        if by_user or kind is FETCH:
            with pytest.raises(ValueError, match="an implicit access is a supervisor's"):
                Access(kind, by_user, implicit=True)
        else:
            assert str(Access(kind, by_user, implicit=True)).startswith("implicit supervisor")


# ---- large pages ----


@pytest.mark.parametrize(
    ("mode", "depth", "size"),
    [
        (Mode.BITS_32, 1, 0x40_0000),
        (Mode.PAE, 1, 0x20_0000),
        (Mode.LEVEL_4, 3, 0x20_0000),
        (Mode.LEVEL_4, 2, 0x4000_0000),
        (Mode.LEVEL_5, 4, 0x20_0000),
        (Mode.LEVEL_5, 3, 0x4000_0000),
    ],
)
def test_a_large_page_takes_its_offset_from_the_address(mode: Mode, depth: int, size: int) -> None:
    cpu, where = path(Cpu.in_mode(mode, 0, cr4=Cr4.PSE), *[ALL] * (depth - 1), ALL | PS)
    assert comes_to(cpu, where, size - 1, user(READ)) == f"reaches {size - 1:#x}"
    assert comes_to(cpu, where, size, user(READ)) == "#PF(04) NOT_PRESENT"


def test_a_4m_page_can_lie_above_4_gigabytes() -> None:
    cpu = Cpu.in_mode(Mode.BITS_32, 0, cr4=Cr4.PSE)
    assert at(cpu, user(READ), ALL | PS | 0xAB << 13 | 0xCDC0_0000) == "reaches 0xabcdc00010"
    without = replace(cpu, pse36=False)
    assert at(without, user(READ), ALL | PS | 1 << 13) == "#PF(0d) RESERVED"


def test_without_pse_ps_is_ignored() -> None:
    cpu = Cpu.in_mode(Mode.BITS_32, 0, cr4=0)
    assert at(cpu, user(READ), ALL | PS, ALL) == "reaches 0x8010"


@pytest.mark.parametrize("cr4", [0, Cr4.PSE])
def test_pae_paging_does_not_look_at_pse(cr4: int) -> None:
    assert at(Cpu.in_mode(Mode.PAE, 0, cr4=cr4), user(READ), ALL | PS) == "reaches 0x10"


@pytest.mark.parametrize("mode", LONG)
def test_ps_of_a_pdpte_is_reserved_where_the_cpu_has_no_1g_pages(mode: Mode) -> None:
    cpu, entries = Cpu.in_mode(mode, 0), [*[ALL] * (LEVELS[mode] - 3), ALL | PS]
    assert at(cpu, user(READ), *entries) == "reaches 0x10"
    assert at(replace(cpu, page1gb=False), user(READ), *entries) == "#PF(0d) RESERVED"


@pytest.mark.parametrize("mode", LONG)
def test_bit_8_of_a_pml4e_is_reserved_by_amd_alone(mode: Mode) -> None:
    cpu, entries = Cpu.in_mode(mode, 0), flags(mode, l3=ALL | G)
    assert at(cpu, user(READ), *entries) == "reaches 0x8010"
    assert at(replace(cpu, amd=True), user(READ), *entries) == "#PF(0d) RESERVED"


def test_maxphyaddr_decides_which_address_bits_are_reserved() -> None:
    cpu, entries = Cpu.in_mode(Mode.LEVEL_4, 0), flags(Mode.LEVEL_4, l0=ALL | 1 << 39)
    assert at(cpu, user(READ), *entries) == "reaches 0x8000008010"
    assert at(replace(cpu, maxphyaddr=39), user(READ), *entries) == "#PF(0d) RESERVED"


# ---- accessed and dirty ----


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", Kind)
def test_success_sets_a_in_every_entry_used_and_d_in_the_leaf_of_a_write(
    mode: Mode, kind: Kind
) -> None:
    shadow = kind.name.startswith("SHADOW")
    cpu, where = path(Cpu.in_mode(mode, 0), *flags(mode, l0=P | US | D if shadow else ALL))
    answer = outcome(cpu, where, Virtual(0x10), user(kind))
    assert isinstance(answer, Allowed)
    used = [(slot.level, slot.address) for slot in answer.accessed]
    levels = LEVELS[mode]
    assert used == [(levels - 1 - depth, 0x1000 * (depth + 1)) for depth in range(levels)]
    writes = kind in (WRITE, PUSH, Kind.SHADOW_WRITE)
    assert answer.dirty == (answer.accessed[-1] if writes else None)


@pytest.mark.parametrize("mode", MODES)
def test_a_and_d_are_bits_5_and_6_and_deny_nothing(mode: Mode) -> None:
    cpu = Cpu.in_mode(mode, 0)
    assert (cpu.format.accessed, cpu.format.dirty) == (A, D)
    for bits in (A, D, A | D):
        entries = [ALL | bits & (A if level else A | D) for level in range(LEVELS[mode])][::-1]
        assert at(cpu, user(WRITE), *entries) == "reaches 0x8010"
