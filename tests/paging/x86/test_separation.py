"""Linear-address-space separation: which half of the addresses is whose (SDM volume 3A)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu, Cr3, Cr4, Mode
from tests.paging.x86.made import (
    ALL,
    FETCH,
    READ,
    WRITE,
    comes_to,
    implicit,
    memory,
    path,
    supervisor,
    user,
)

LOW, HIGH = 0x0000_1234_5678_9ABC, 0xFFFF_9234_5678_9ABC
LASS, SMAP, AC = "LASS", "SMAP", "AC"
USER, OF_FETCH, OF_DATA = "#GP(00) LASS_USER", "#GP(00) LASS_FETCH", "#GP(00) LASS_DATA"
OF_PUSH = "#SS(00) LASS_DATA"
WALKED = "NOT_PRESENT"
"""The walk begins, and ends at once, since no table has anything."""

RULES: list[tuple[str, int, Access, str]] = [
    (LASS, LOW, user(READ), WALKED),
    (LASS, LOW, user(WRITE), WALKED),
    (LASS, LOW, user(FETCH), WALKED),
    (LASS, HIGH, user(READ), USER),
    (LASS, HIGH, user(WRITE), USER),
    (LASS, HIGH, user(FETCH), USER),
    (f"{LASS} {SMAP} {AC}", HIGH, user(READ), USER),
    (LASS, HIGH, user(Kind.PUSH), "#SS(00) LASS_USER"),
    (LASS, HIGH, user(Kind.POP), "#SS(00) LASS_USER"),
    (LASS, HIGH, supervisor(READ), WALKED),
    (LASS, HIGH, supervisor(FETCH), WALKED),
    (f"{LASS} {SMAP}", HIGH, supervisor(WRITE), WALKED),
    (f"{LASS} {SMAP}", HIGH, implicit(READ), WALKED),
    (LASS, LOW, supervisor(FETCH), OF_FETCH),
    (f"{LASS} {SMAP}", LOW, supervisor(FETCH), OF_FETCH),
    (f"{LASS} {SMAP} {AC}", LOW, supervisor(FETCH), OF_FETCH),
    (LASS, LOW, supervisor(READ), WALKED),
    (LASS, LOW, implicit(READ), WALKED),
    (f"{LASS} {SMAP}", LOW, supervisor(READ), OF_DATA),
    (f"{LASS} {SMAP}", LOW, supervisor(WRITE), OF_DATA),
    (f"{LASS} {SMAP}", LOW, supervisor(Kind.PUSH), OF_PUSH),
    (f"{LASS} {SMAP} {AC}", LOW, supervisor(READ), WALKED),
    (f"{LASS} {SMAP} {AC}", LOW, supervisor(Kind.PUSH), WALKED),
    (f"{LASS} {SMAP}", LOW, implicit(READ), OF_DATA),
    (f"{LASS} {SMAP} {AC}", LOW, implicit(READ), OF_DATA),
    (SMAP, LOW, supervisor(READ), WALKED),
    (SMAP, LOW, supervisor(FETCH), WALKED),
    (SMAP, HIGH, user(READ), WALKED),
]


def machine(mode: Mode, state: str) -> Cpu:
    cr4 = Cr4.LASS * (LASS in state) | Cr4.SMAP * (SMAP in state)
    return replace(Cpu.in_mode(mode, 0, cr4=cr4), ac=AC in state)


@pytest.mark.parametrize("mode", [Mode.LEVEL_4, Mode.LEVEL_5])
@pytest.mark.parametrize(("state", "address", "access", "says"), RULES)
def test_an_access_to_the_other_half_faults_before_there_is_a_walk(
    mode: Mode, state: str, address: int, access: Access, says: str
) -> None:
    text = comes_to(machine(mode, state), memory({}), address, access)
    assert text.endswith(WALKED) if says == WALKED else text == says


def test_an_address_that_is_in_neither_half_is_not_canonical() -> None:
    for address in (1 << 47, 1 << 63):
        for access in (user(READ), supervisor(READ)):
            text = comes_to(machine(Mode.LEVEL_4, f"{LASS} {SMAP}"), memory({}), address, access)
            assert text.startswith("#GP(00)")


def test_no_memory_is_asked_for_entries() -> None:
    """The walk of the address needs an entry that is not there, and is not made."""
    nowhere = replace(machine(Mode.LEVEL_4, LASS), cr3=1 << 30)
    assert comes_to(nowhere, memory({}), HIGH, user(READ)) == USER
    assert comes_to(nowhere, memory({}), HIGH, supervisor(READ)) == "unknown"


def test_the_tables_have_no_say() -> None:
    cpu, where = path(machine(Mode.LEVEL_4, f"{LASS} {SMAP}"), ALL, ALL, ALL, ALL & ~4)
    assert comes_to(cpu, where, 0, supervisor(READ)) == OF_DATA
    assert comes_to(replace(cpu, ac=True), where, 0, supervisor(READ)).startswith("reaches")


@pytest.mark.parametrize("mode", [Mode.BITS_32, Mode.PAE])
def test_outside_long_mode_there_are_no_halves(mode: Mode) -> None:
    pdptes = (0x1001,) * 4
    cpu = replace(machine(mode, f"{LASS} {SMAP}"), pdptes=pdptes)
    for address in (0x1234_5678, 0xF234_5678):
        for access in (user(READ), supervisor(READ), supervisor(FETCH)):
            assert comes_to(cpu, memory({}), address, access).endswith(WALKED)


def test_metadata_leaves_the_bit_by_which_halves_are_told_apart() -> None:
    cpu = replace(machine(Mode.LEVEL_4, LASS), lam=True)
    cpu = replace(cpu, cr3=cpu.cr3 | Cr3.LAM_U48, cr4=cpu.cr4 | Cr4.LAM_SUP)
    assert comes_to(cpu, memory({}), 0x7FFF_1234_5678_9ABC, user(READ)).endswith(WALKED)
    assert comes_to(cpu, memory({}), 0x8000_9234_5678_9ABC, user(READ)) == USER
