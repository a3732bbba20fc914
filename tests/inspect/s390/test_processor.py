"""Which space a processor of s390 translates in, by its PSW and control registers."""

from __future__ import annotations

from typing import Final

import pytest

from harness.inspect.architecture import Seen
from harness.inspect.s390.processor import assumed, cpu_of, cpu_with, of_controls
from harness.inspect.snapshot import SourceError

EDAT, IEP, REAL = 1 << 63 - 40, 1 << 63 - 43, 1 << 63 - 58
"""Bits 40 and 43 of CR0, and 58 of an ASCE, as the manual numbers them."""

ASCES: Final = {1: 0x1_1004, 7: 0x7_7008, 13: 0xD_D00C}
SPACES = {0: 1, 1: 1, 2: 7, 3: 13}
"""The control register of the ASCE, by bits 16 and 17 of the PSW."""


def psw(control: int, translates: bool = True) -> int:
    return control << 63 - 17 | translates << 63 - 5


def of(
    control: int = 0,
    given: dict[str, int] | None = None,
    has: dict[str, bool] | None = None,
    prefix: int | None = None,
    controls: dict[int, int] | None = None,
) -> Seen:
    """A processor of which the control registers have these values besides the usual."""
    own = {0: EDAT | IEP, **ASCES, **(controls or {})}
    return of_controls("the core", own, psw(control), has or {}, given or {}, prefix)


@pytest.mark.parametrize(("control", "register"), SPACES.items())
def test_the_psw_chooses_the_asce(control: int, register: int) -> None:
    found = of(control)
    assert (found.cpu.asce, found.cpu.cr0) == (ASCES[register], EDAT | IEP)
    (note,) = found.notes
    name = {1: "primary", 7: "secondary", 13: "home"}
    how = "where access registers choose no other" if control == 1 else "by the PSW"
    others = ", ".join(
        f"--asce {asce:#x} is the {name[one]} one" for one, asce in ASCES.items() if one != register
    )
    assert note == f"The {name[register]} space (CR{register}), {how}; {others}"


def test_what_is_alike_in_other_spaces_is_not_named_and_a_psw_without_dat_is() -> None:
    alike = dict.fromkeys((1, 7, 13), 0x4000)
    (note,) = of_controls("", {0: 0, **alike}, psw(0, translates=False), {}, {}, None).notes
    assert note == (
        "The primary space (CR1), by the PSW; the processor was not translating (PSW bit 5 is 0)"
    )


def test_of_a_real_space_those_that_tables_translate_are_named() -> None:
    for controls, said in (
        ({}, "choose --asce 0x77008 of the secondary space or --asce 0xdd00c of the home space"),
        ({7: 0}, "choose --asce 0xdd00c of the home space"),
        ({13: REAL}, "choose --asce 0x77008 of the secondary space"),
        ({7: REAL, 13: 0}, "translates (--asce)"),
    ):
        with pytest.raises(SourceError) as raised:
            of(controls={1: 0x5000 | REAL, **controls})
        assert str(raised.value).startswith("CR1 of the core, 0x5020, designates real space")
        assert str(raised.value).endswith(said)
    found = of(0, {"asce": 0x9004}, controls={1: REAL})
    assert (found.cpu.asce, found.notes) == (0x9004, ())


def test_a_prefix_is_noted_unless_it_is_0_or_not_known() -> None:
    assert [len(of(prefix=prefix).notes) for prefix in (None, 0, 0x2_0000)] == [1, 1, 2]
    assert of(prefix=0x2_0000).notes[1].startswith("The prefix is 0x20000: ")


def test_facilities_that_are_not_known_are_doubted_where_cr0_turns_one_on() -> None:
    off = {"edat1": False, "edat2": False, "iep": False}
    for has, given, cr0, doubted in (
        ({}, {}, EDAT, True),
        ({}, {}, IEP, True),
        ({}, {}, 0, False),
        ({}, {"cr0": EDAT}, 0, False),
        (off, {}, EDAT | IEP, False),
    ):
        found = of(0, given, has, controls={0: cr0})
        assert bool(found.assumed) == doubted
        assert found.cpu.cr0 == given.get("cr0", cr0)
        assert (found.cpu.edat1, found.cpu.edat2, found.cpu.iep) == (has != off,) * 3


def test_without_cr0_all_is_on_but_low_address_protection() -> None:
    cpu = cpu_of({"asce": 0x5004})
    assert (cpu.cr0, cpu.edat1, cpu.edat2, cpu.iep) == (EDAT | IEP, True, True, True)
    assert [len([*assumed(given, "a file")]) for given in ({}, {"cr0": 0})] == [1, 0]
    changed = cpu_with(cpu, {"asce": 0x6008})
    assert (changed.asce, changed.cr0, changed.iep) == (0x6008, cpu.cr0, True)
    for wrong in ({"asce": REAL}, {"asce": 1 << 64}):
        with pytest.raises(SourceError, match=r"real space|64 bits"):
            cpu_of(wrong)
        with pytest.raises(SourceError, match=r"real space|64 bits"):
            cpu_with(cpu, wrong)
