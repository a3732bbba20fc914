"""Protection keys: PKRU on user pages and IA32_PKRS on supervisor pages (SDM 4.6.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.paging.x86.access import Access, Kind, Reason, key_denies
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Mode
from tests.paging.x86.made import (
    ALL,
    FETCH,
    NX,
    PS,
    READ,
    RW,
    US,
    WRITE,
    P,
    comes_to,
    implicit,
    path,
    supervisor,
    user,
)

PUSH, POP = Kind.PUSH, Kind.POP
KEY = 5
HELD = KEY << 59
ACCESS_DISABLED, WRITE_DISABLED = 1 << 10, 2 << 10
"""The two bits of key 5 in PKRU and PKRS."""

USER_PAGE, SUPERVISOR_PAGE = ALL | HELD, P | RW | HELD
REACHES = "reaches 0x8010"


def cpu(*, pkru: int = 0, pkrs: int = 0, cr4: int = Cr4.PKE | Cr4.PKS, cr0: int = Cr0.WP) -> Cpu:
    return replace(Cpu.in_mode(Mode.LEVEL_4, 0, cr4=cr4, cr0=cr0), pkru=pkru, pkrs=pkrs)


def at(machine: Cpu, access: Access, leaf: int) -> str:
    """What an access comes to, where all but the leaf allow all."""
    return comes_to(*path(machine, ALL, ALL, ALL, leaf), 0x10, access)


@pytest.mark.parametrize(
    ("access", "text"),
    [
        (user(READ), "#PF(25) PKU"),
        (user(WRITE), "#PF(27) PKU"),
        (user(PUSH), "#PF(27) PKU"),
        (user(POP), "#PF(25) PKU"),
        (supervisor(READ), "#PF(21) PKU"),
        (supervisor(WRITE), "#PF(23) PKU"),
        (implicit(READ), "#PF(21) PKU"),
        (user(FETCH), REACHES),
        (supervisor(FETCH), REACHES),
    ],
)
def test_ad_of_pkru_denies_all_data_on_user_pages(access: Access, text: str) -> None:
    assert at(cpu(pkru=ACCESS_DISABLED), access, USER_PAGE) == text
    assert at(cpu(pkru=ACCESS_DISABLED, cr0=0), access, USER_PAGE) == text


@pytest.mark.parametrize(
    ("access", "wp", "text"),
    [
        (user(READ), True, REACHES),
        (user(WRITE), True, "#PF(27) PKU"),
        (user(WRITE), False, "#PF(27) PKU"),
        (user(PUSH), False, "#PF(27) PKU"),
        (user(POP), True, REACHES),
        (supervisor(READ), True, REACHES),
        (supervisor(WRITE), True, "#PF(23) PKU"),
        (supervisor(WRITE), False, REACHES),
        (implicit(WRITE), True, "#PF(23) PKU"),
        (implicit(WRITE), False, REACHES),
        (user(FETCH), True, REACHES),
    ],
)
def test_wd_of_pkru_denies_writes_the_supervisors_with_wp_alone(
    access: Access, wp: bool, text: str
) -> None:
    machine = cpu(pkru=WRITE_DISABLED, cr0=Cr0.WP if wp else 0)
    assert at(machine, access, USER_PAGE) == text


@pytest.mark.parametrize(
    ("access", "pkrs", "wp", "text"),
    [
        (supervisor(READ), ACCESS_DISABLED, True, "#PF(21) PKS"),
        (supervisor(READ), ACCESS_DISABLED, False, "#PF(21) PKS"),
        (supervisor(WRITE), ACCESS_DISABLED, False, "#PF(23) PKS"),
        (implicit(READ), ACCESS_DISABLED, True, "#PF(21) PKS"),
        (supervisor(FETCH), ACCESS_DISABLED, True, REACHES),
        (supervisor(READ), WRITE_DISABLED, True, REACHES),
        (supervisor(WRITE), WRITE_DISABLED, True, "#PF(23) PKS"),
        (supervisor(PUSH), WRITE_DISABLED, True, "#PF(23) PKS"),
        (supervisor(WRITE), WRITE_DISABLED, False, REACHES),
    ],
)
def test_pkrs_has_the_same_rules_on_supervisor_pages(
    access: Access, pkrs: int, wp: bool, text: str
) -> None:
    assert at(cpu(pkrs=pkrs, cr0=Cr0.WP if wp else 0), access, SUPERVISOR_PAGE) == text


def test_each_register_counts_for_pages_of_its_own_mode_alone() -> None:
    for access in (user(READ), supervisor(READ), supervisor(WRITE)):
        assert at(cpu(pkrs=0xFFFF_FFFF), access, USER_PAGE) == REACHES
    for access in (supervisor(READ), supervisor(WRITE)):
        assert at(cpu(pkru=0xFFFF_FFFF), access, SUPERVISOR_PAGE) == REACHES


def test_a_page_is_the_users_if_all_its_entries_say_so() -> None:
    """Its leaf does, the entry above does not: PKRS counts."""
    machine = cpu(pkru=0, pkrs=ACCESS_DISABLED)
    tables = path(machine, ALL, ALL, P | RW, USER_PAGE)
    assert comes_to(*tables, 0x10, supervisor(READ)) == "#PF(21) PKS"


def test_keys_count_with_their_bit_of_cr4_alone() -> None:
    denying = {"pkru": 0xFFFF_FFFF, "pkrs": 0xFFFF_FFFF}
    assert at(cpu(**denying, cr4=Cr4.PKS), user(READ), USER_PAGE) == REACHES
    assert at(cpu(**denying, cr4=Cr4.PKE), user(READ), USER_PAGE) == "#PF(25) PKU"
    assert at(cpu(**denying, cr4=Cr4.PKE), supervisor(READ), SUPERVISOR_PAGE) == REACHES
    assert at(cpu(**denying, cr4=Cr4.PKS), supervisor(READ), SUPERVISOR_PAGE) == "#PF(21) PKS"


@pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE])
def test_there_are_no_keys_outside_long_mode(mode: Mode) -> None:
    keys = {"pkru": 0xFFFF_FFFF, "pkrs": 0xFFFF_FFFF}
    machine = replace(Cpu.in_mode(mode, 0, cr4=Cr4.PKE | Cr4.PKS), **keys)  # type: ignore[arg-type]
    assert comes_to(*path(machine, ALL, ALL), 0x10, user(WRITE)) == REACHES
    assert comes_to(*path(machine, ALL, P | RW), 0x10, supervisor(WRITE)) == REACHES


@pytest.mark.parametrize("key", range(16))
def test_the_key_is_bits_62_to_59_of_the_leaf_and_chooses_two_bits_of_the_register(
    key: int,
) -> None:
    for other in range(16):
        machine = cpu(pkru=1 << 2 * other)
        text = "#PF(25) PKU" if other == key else REACHES
        assert at(machine, user(READ), ALL | key << 59) == text
        machine = cpu(pkrs=2 << 2 * other)
        text = "#PF(23) PKS" if other == key else REACHES
        assert at(machine, supervisor(WRITE), P | RW | key << 59) == text


def test_xd_beside_the_key_is_no_part_of_it() -> None:
    assert at(cpu(pkru=ACCESS_DISABLED), user(READ), USER_PAGE | NX) == "#PF(25) PKU"
    assert at(cpu(pkru=1), user(READ), USER_PAGE | NX) == REACHES


def test_upper_entries_have_no_key() -> None:
    machine, keyed = cpu(pkru=ACCESS_DISABLED), ALL | HELD
    assert comes_to(*path(machine, keyed, keyed, keyed, ALL), 0x10, user(READ)) == REACHES


@pytest.mark.parametrize("depth", [2, 3])
def test_the_key_of_a_large_page_is_in_the_same_bits(depth: int) -> None:
    entries = [*[ALL] * (depth - 1), USER_PAGE | PS]
    machine = cpu(pkru=ACCESS_DISABLED)
    assert comes_to(*path(machine, *entries), 0x10, user(READ)) == "#PF(25) PKU"


def test_pk_is_set_when_the_key_denies_also_if_another_right_does() -> None:
    read_only = P | US | HELD
    assert at(cpu(pkru=WRITE_DISABLED), user(WRITE), read_only) == "#PF(27) WRITE_DENIED"
    assert at(cpu(pkru=ACCESS_DISABLED), user(WRITE), read_only) == "#PF(27) WRITE_DENIED"
    assert at(cpu(), user(WRITE), read_only) == "#PF(07) WRITE_DENIED"
    smap = cpu(pkru=ACCESS_DISABLED, cr4=Cr4.PKE | Cr4.SMAP)
    assert at(smap, supervisor(READ), USER_PAGE) == "#PF(21) SMAP"
    assert at(cpu(pkrs=WRITE_DISABLED), supervisor(WRITE), P | HELD) == "#PF(23) WRITE_DENIED"


def test_a_user_access_to_a_supervisor_page_has_nothing_to_do_with_keys() -> None:
    machine = cpu(pkru=0xFFFF_FFFF, pkrs=0xFFFF_FFFF)
    assert at(machine, user(READ), SUPERVISOR_PAGE) == "#PF(05) USER_DENIED"


@pytest.mark.parametrize(
    ("leaf", "text"),
    [(HELD, "#PF(04) NOT_PRESENT"), (USER_PAGE | 1 << 45, "#PF(0d) RESERVED")],
)
def test_a_walk_that_finds_no_page_finds_no_key(leaf: int, text: str) -> None:
    assert at(cpu(pkru=0xFFFF_FFFF), user(READ), leaf) == text


@pytest.mark.parametrize("key", range(16))
def test_a_key_denies_by_its_own_two_bits_alone(key: int) -> None:
    """SDM 4.6.2: AD is bit 2i, WD bit 2i + 1."""
    every = (1 << 32) - 1
    granted = RW | US
    for access in (user(WRITE), user(READ)):
        assert key_denies(cpu(pkru=every & ~(3 << 2 * key)), access, granted, key) is None
        assert key_denies(cpu(pkru=1 << 2 * key), access, granted, key) is Reason.PKU
    assert key_denies(cpu(pkru=2 << 2 * key), user(WRITE), granted, key) is Reason.PKU
    assert key_denies(cpu(pkru=2 << 2 * key), user(READ), granted, key) is None
