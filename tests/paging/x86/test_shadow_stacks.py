"""Shadow-stack pages, and who may do what with them (SDM 4.6.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from tests.paging.x86.made import (
    ALL,
    FETCH,
    PS,
    READ,
    RW,
    US,
    WRITE,
    D,
    P,
    comes_to,
    path,
    supervisor,
    user,
)

SHADOW_READ, SHADOW_WRITE = Kind.SHADOW_READ, Kind.SHADOW_WRITE
LEVELS = {Mode.BITS_32: 2, Mode.PAE: 2, Mode.LEVEL_4: 4, Mode.LEVEL_5: 5}
USER_STACK, SUPERVISOR_STACK = P | US | D, P | D
REACHES = "reaches 0x8010"

per_mode = pytest.mark.parametrize("mode", list(Mode))


def at(mode: Mode, access: Access, leaf: int, above: int = ALL) -> str:
    """What an access comes to through entries that allow all, but for the last two."""
    entries = [*[ALL] * (LEVELS[mode] - 2), above, leaf]
    return comes_to(*path(Cpu.in_mode(mode, 0, cr4=Cr4.SMAP), *entries), 0x10, access)


@per_mode
@pytest.mark.parametrize("kind", [SHADOW_READ, SHADOW_WRITE])
def test_each_mode_reaches_its_own_shadow_stacks(mode: Mode, kind: Kind) -> None:
    assert at(mode, user(kind), USER_STACK) == REACHES
    assert at(mode, supervisor(kind), SUPERVISOR_STACK) == REACHES


@per_mode
@pytest.mark.parametrize(("kind", "error"), [(SHADOW_READ, 0x41), (SHADOW_WRITE, 0x43)])
def test_neither_mode_reaches_the_others(mode: Mode, kind: Kind, error: int) -> None:
    assert at(mode, user(kind), SUPERVISOR_STACK) == f"#PF({error + 4:02x}) USER_DENIED"
    assert at(mode, supervisor(kind), USER_STACK) == f"#PF({error:02x}) SHADOW_STACK"


@per_mode
@pytest.mark.parametrize(
    ("leaf", "above"),
    [
        (P | RW | US | D, ALL),  # writable
        (P | US, ALL),  # not dirty
        (P | RW | US, ALL),
        (P | US | D, P | US),  # an upper entry is read-only
    ],
)
def test_a_shadow_stack_is_a_dirty_read_only_page_under_writable_entries(
    mode: Mode, leaf: int, above: int
) -> None:
    assert at(mode, user(SHADOW_READ), leaf, above) == "#PF(45) SHADOW_STACK"
    assert at(mode, user(SHADOW_WRITE), leaf, above) == "#PF(47) SHADOW_STACK"


def test_every_upper_level_must_be_writable() -> None:
    for level in range(4):
        entries = [P | US if depth == level else ALL for depth in range(4)]
        tables = path(Cpu.in_mode(Mode.LEVEL_5, 0), *entries, USER_STACK)
        assert comes_to(*tables, 0x10, user(SHADOW_READ)) == "#PF(45) SHADOW_STACK"


def test_d_of_an_upper_entry_is_not_looked_at() -> None:
    assert at(Mode.LEVEL_4, user(SHADOW_READ), P | US, ALL | D) == "#PF(45) SHADOW_STACK"


def test_a_large_page_can_be_a_shadow_stack() -> None:
    tables = path(Cpu.in_mode(Mode.LEVEL_4, 0), ALL, ALL, USER_STACK | PS)
    assert comes_to(*tables, 0x10, user(SHADOW_WRITE)) == "reaches 0x10"


@per_mode
def test_to_other_accesses_a_shadow_stack_is_a_read_only_page(mode: Mode) -> None:
    assert at(mode, user(READ), USER_STACK) == REACHES
    assert at(mode, user(FETCH), USER_STACK) == REACHES
    assert at(mode, user(WRITE), USER_STACK) == "#PF(07) WRITE_DENIED"
    assert at(mode, supervisor(WRITE), SUPERVISOR_STACK) == "#PF(03) WRITE_DENIED"


@per_mode
def test_ss_describes_the_access_whatever_failed(mode: Mode) -> None:
    assert at(mode, user(SHADOW_WRITE), D) == "#PF(46) NOT_PRESENT"
    assert at(mode, supervisor(SHADOW_READ), ALL, 0) == "#PF(40) NOT_PRESENT"


def test_ss_is_set_beside_rsvd_and_pk() -> None:
    assert at(Mode.LEVEL_4, user(SHADOW_READ), USER_STACK | 1 << 45) == "#PF(4d) RESERVED"
    cpu = replace(Cpu.in_mode(Mode.LEVEL_4, 0, cr4=Cr4.PKE), pkru=1)
    tables = path(cpu, ALL, ALL, ALL, USER_STACK)
    assert comes_to(*tables, 0x10, user(SHADOW_READ)) == "#PF(65) PKU"


def test_the_pointer_of_a_shadow_stack_is_no_stack_reference() -> None:
    cpu, where = path(Cpu.in_mode(Mode.LEVEL_4, 0), ALL)
    assert comes_to(cpu, where, 1 << 62, user(SHADOW_READ)) == "#GP(00) NOT_CANONICAL"
