"""What decides how an s390 translates, written from the manual's figures: the address-space-control
element, control register 0, and which of the addresses an element serves."""

from __future__ import annotations

import pytest

from harness.paging.address import Physical, Span
from harness.paging.s390 import Asce, Cpu, Mode

ORIGIN, TOP = 0x1234_5678_9ABC_D000, 1 << 64
PRIVATE, REAL_SPACE = 1 << 63 - 55, 1 << 63 - 58
LOW_ADDRESS_PROTECTION, EDAT, IEP = 1 << 63 - 35, 1 << 63 - 40, 1 << 63 - 43
"""Bits of an ASCE and of CR0, as the manual numbers them: bit 0 is the highest."""

DESIGNATIONS = {
    Mode.SEGMENT: (0b00, 1, 31),
    Mode.REGION_THIRD: (0b01, 2, 42),
    Mode.REGION_SECOND: (0b10, 3, 53),
    Mode.REGION_FIRST: (0b11, 4, 64),
}
"""DT, the level of the table, and how wide the addresses are that it serves: RFX and RSX and RTX
have 11 bits each, SX 11, PX 8 and BX 12."""


@pytest.mark.parametrize("mode", DESIGNATIONS)
@pytest.mark.parametrize("quarters", [1, 2, 3, 4])
@pytest.mark.parametrize("private", [False, True])
def test_an_element_says_which_table_and_how_much_of_it(
    mode: Mode, quarters: int, private: bool
) -> None:
    dt, level, width = DESIGNATIONS[mode]
    raw = ORIGIN | dt << 2 | quarters - 1 | (PRIVATE if private else 0)
    asce = Asce.of(raw)
    assert asce == Asce(mode, Physical(ORIGIN), quarters, private)
    assert (asce.mode, asce.origin, asce.quarters, asce.private) == (
        *(mode, ORIGIN, quarters, private),
    )
    assert asce.raw == raw
    cpu = Cpu(raw)
    assert cpu.mode is mode and cpu.base == ORIGIN
    assert (mode.dt, mode.level, mode.address_bits) == (dt, level, width)
    assert cpu.levels == len(cpu.format.levels) == level + 1
    [root] = cpu.roots
    assert root.span == Span.of(0, quarters * (1 << width) // 4)
    assert (root.table.address, root.table.level, root.table.format) == (ORIGIN, level, cpu.format)


def test_a_space_is_whole_and_not_private_unless_it_is_said() -> None:
    assert Asce(Mode.SEGMENT, Physical(0x1000)).raw == 0x1003
    cpu = Cpu.in_mode(Mode.REGION_FIRST, 0x1000)
    assert (cpu.asce, cpu.cr0, cpu.edat1, cpu.edat2, cpu.iep) == (0x100F, 0, False, False, False)


def test_bits_of_an_element_that_say_nothing_of_translation_are_left_out() -> None:
    # G, S and X: subspace group, storage alteration, space switch; bits 54, 56 and 57.
    for ignored in (1 << 63 - 54, 1 << 63 - 56, 1 << 63 - 57):
        assert Asce.of(0x1003 | ignored) == Asce(Mode.SEGMENT, Physical(0x1000))


@pytest.mark.parametrize("facilities", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("iep", [False, True])
@pytest.mark.parametrize("low", [False, True])
def test_a_processor_has_on_what_it_is_made_with(
    facilities: tuple[bool, bool], iep: bool, low: bool
) -> None:
    edat1, edat2 = facilities
    cpu = Cpu.in_mode(
        Mode.REGION_THIRD,
        0x2000,
        quarters=2,
        private=not low,
        edat1=edat1,
        edat2=edat2,
        iep=iep,
        low_address_protection=low,
    )
    assert cpu.asce == 0x2000 | 0b0101 | (0 if low else PRIVATE)
    wanted = (EDAT if edat1 else 0) | (IEP if iep else 0) | (LOW_ADDRESS_PROTECTION if low else 0)
    assert cpu.cr0 == wanted
    assert (cpu.edat1, cpu.edat2, cpu.iep) == (edat1, edat2, iep)


def test_a_facility_applies_where_it_is_there_and_control_register_0_turns_it_on() -> None:
    def large(cpu: Cpu) -> list[int]:
        """The levels at which there are pages."""
        return [
            n
            for n, level in enumerate(cpu.format.levels)
            if any(not shape.points for shape in level.shapes)
        ]

    asce = Asce(Mode.REGION_FIRST, Physical(0)).raw
    assert large(Cpu(asce, EDAT, edat1=True)) == [0, 1]
    assert large(Cpu(asce, EDAT, edat1=True, edat2=True)) == [0, 1, 2]
    off = 2**64 - 1 - EDAT
    assert large(Cpu(asce, off, edat1=True, edat2=True)) == [0]
    assert large(Cpu(asce, EDAT)) == [0]
    assert "execute" in Cpu(asce, IEP, iep=True).format.rights
    assert "execute" not in Cpu(asce, IEP).format.rights
    assert "execute" not in Cpu(asce, 2**64 - 1 - IEP, iep=True).format.rights


def test_a_private_space_has_no_protected_low_addresses() -> None:
    for private in (False, True):
        asce = Asce(Mode.SEGMENT, Physical(0), private=private).raw
        on, off = Cpu(asce, LOW_ADDRESS_PROTECTION), Cpu(asce, 2**64 - 1 - LOW_ADDRESS_PROTECTION)
        assert on.low_address_protection is not private
        assert off.low_address_protection is False


def test_a_state_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="is wider than 64 bits"):
        Asce.of(TOP)
    assert Asce.of(TOP - 1 - REAL_SPACE).mode is Mode.REGION_FIRST
    with pytest.raises(ValueError, match="0x23 designates real space"):
        Cpu(0x23)
    for origin in (0x800, 1, -0x1800, 1 << 64):
        with pytest.raises(ValueError, match="inside a page"):
            Asce(Mode.SEGMENT, Physical(origin))
    for quarters in (0, 5):
        with pytest.raises(ValueError, match=f"1 to 4 quarters, not {quarters}"):
            Asce(Mode.SEGMENT, Physical(0), quarters)
    with pytest.raises(ValueError, match="facility 2 is not there without facility 1"):
        Cpu(3, edat2=True)
