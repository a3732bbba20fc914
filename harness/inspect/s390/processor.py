"""From the control registers that a source has, and those given in their place, to the state of a
processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from harness.inspect.architecture import Seen
from harness.inspect.snapshot import SourceError
from harness.paging.s390.cpu import REAL_SPACE, AddressSpace, Cpu, Cr0

ASCES: Final = {
    AddressSpace.PRIMARY: 1,
    AddressSpace.SECONDARY: 7,
    AddressSpace.HOME: 13,
}
"""The control registers that hold the ASCEs."""

_DAT: Final = 1 << 58
"""PSW bit 5: addresses are translated."""

_SPACE: Final = 46
"""How far the address-space control stands above bit 0 of the PSW's first half: bits 16 and 17 of
64.  0 is primary, 1 access registers, 2 secondary, 3 home (chapter 4, "Program-Status Word")."""

_USUAL: Final = {"edat1": True, "edat2": True, "iep": True}


def cpu_with(usual: Cpu, registers: Mapping[str, int]) -> Cpu:
    """The state of `usual` but for these registers, by the names of its fields.

    Raises SourceError where no processor translates in that state.
    """
    try:
        return replace(usual, **registers)  # type: ignore[arg-type]
    except ValueError as error:
        raise SourceError(str(error)) from None


def cpu_of(registers: Mapping[str, int]) -> Cpu:
    """The processor whose ASCE is among these registers; of what is not given, all is on.

    Raises SourceError where no processor translates in that state.
    """
    try:
        return Cpu(**{"cr0": int(Cr0.EDAT | Cr0.IEP), **_USUAL, **registers})  # type: ignore[arg-type]
    except ValueError as error:
        raise SourceError(str(error)) from None


def assumed(given: Mapping[str, int], source: str) -> Iterator[str]:
    """What is assumed of a processor of which a source has no more than the ASCE, a sentence
    each."""
    if "cr0" not in given:
        yield (
            "the enhanced-DAT facilities and IEP are on, and low-address protection is off, since"
            f" {source} does not record CR0 (--cr0)"
        )


def of_controls(
    title: str,
    controls: Mapping[int, int],
    psw: int,
    has: Mapping[str, bool],
    given: Mapping[str, int],
    prefix: int | None,
) -> Seen:
    """A processor by its control registers, each by its number, with those that are given in their
    place: in the space that the PSW chooses.

    psw     its first 64 bits
    has     which facilities the processor has, as far as that is known
    prefix  None where it is not known

    Raises SourceError where the ASCE of that space designates real space, and none is given.
    """
    chosen = psw >> _SPACE & 3
    space = AddressSpace(chosen) if chosen != 1 else AddressSpace.PRIMARY
    asce = controls[ASCES[space]]
    notes = [_which(space, chosen == 1, psw, controls)]
    if "asce" in given:
        notes = []
    elif asce & REAL_SPACE:
        others = " or ".join(
            f"--asce {controls[number]:#x} of the {one.name.lower()} space"
            for one, number in ASCES.items()
            if not controls[number] & REAL_SPACE and controls[number]
        )
        named = f": choose {others}" if others else " (--asce)"
        raise SourceError(
            f"CR{ASCES[space]} of {title}, {asce:#x}, designates real space, which no table"
            f" translates{named}"
        )
    if prefix:
        notes.append(
            f"The prefix is {prefix:#x}: physical addresses here are real ones, and those of its 8K"
            " and of the first 8K are exchanged in absolute storage, where tables are"
        )
    fields: dict[str, int] = {"asce": asce, "cr0": controls[0], **_USUAL, **has}
    cpu = cpu_of({**fields, **given})
    doubts = tuple[str, ...]()
    if not has and "cr0" not in given and cpu.cr0 & (Cr0.EDAT | Cr0.IEP):
        doubts = ("the processor has the facilities that CR0 turns on: EDAT 1 and 2, and IEP",)
    return Seen(cpu, doubts, tuple(notes))


def _which(space: AddressSpace, by_registers: bool, psw: int, controls: Mapping[int, int]) -> str:
    """Which space is looked at, and where the others are."""
    others = ", ".join(
        f"--asce {controls[number]:#x} is the {one.name.lower()} one"
        for one, number in ASCES.items()
        if controls[number] != controls[ASCES[space]]
    )
    how = "by the PSW"
    if by_registers:
        how = "where access registers choose no other"
    off = "" if psw & _DAT else "; the processor was not translating (PSW bit 5 is 0)"
    more = f"; {others}" if others else ""
    return f"The {space.name.lower()} space (CR{ASCES[space]}), {how}{off}{more}"
