"""What a running QEMU tells of a processor of arm64.

No command of its monitor shows a register that translation needs, and it has none that lists what
is mapped: the registers are those that its gdb stub describes, of a guest that stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.check.held import HeldMemory
from harness.inspect.architecture import Seen
from harness.inspect.arm64.processor import PSTATE_PAN, PSTATE_UAO, SystemRegisters
from harness.inspect.held import hold_tables
from harness.inspect.snapshot import Snapshot, SourceError
from harness.machine.arm64.registers import registers_of
from harness.machine.errors import ProtocolError
from harness.machine.foreign import ForeignMonitor
from harness.machine.gdbstub import StubMonitor
from harness.paging.arm64.cpu import Features

Monitor = ForeignMonitor | StubMonitor

ENOUGH: Final = frozenset(("ttbr0", "ttbr1", "tcr"))
"""The registers with which QEMU's gdb stub is not asked."""

AARCH32: Final = 1 << 4
EL2, EL3 = 2, 3
"""PSTATE.nRW, and values of PSTATE.EL."""

VM, DC, TGE, E2H = 1 << 0, 1 << 12, 1 << 27, 1 << 34
"""Bits of HCR_EL2: a stage 2, alone or with stage 1 off; EL0 of the host; the host at EL2 (VHE)."""

SPAN: Final = 1 << 23
"""SCTLR_EL1.SPAN: whether an exception to EL1 leaves PSTATE.PAN as it is."""

PIE, E0POE, POE, D128 = 1 << 1, 1 << 2, 1 << 3, 1 << 5
"""Bits of TCR2_EL1: permission indirection, overlays for EL0 and for EL1, and descriptors of 128
bits."""


def seen(monitor: Monitor, given: Mapping[str, int], memory: HeldMemory) -> Seen:
    """The processor as it is now, with the registers that are given in place of its own; all tables
    that its roots lead to are held.

    Raises SourceError where it translates nothing, or in a way that is not known here, MachineError
    where QEMU does not answer, Misuse where its gdb stub cannot be asked.
    """
    if given.keys() >= ENOUGH:
        system = SystemRegisters(**given)
        cpu = system.cpu()
        hold_tables(memory, cpu.roots)
        return Seen(cpu, tuple(system.assumed("QEMU's monitor")))
    shown = registers_of(monitor)
    system, notes = processor(shown)
    host = _is_host(shown)
    cpu = system.with_given(given).cpu(Features(tbid=authenticates_pointers(shown)))
    hold_tables(memory, cpu.roots)
    return Seen(cpu, (), notes, last_exception(shown, 2 if host else 1))


def hold_beside(snapshot: Snapshot, memory: HeldMemory, stack: bool) -> None:
    """Nothing: a processor pushes nothing at a fault, and the tables are held."""


def processor(shown: Mapping[str, int]) -> tuple[SystemRegisters, tuple[str, ...]]:
    """The registers by which a processor translates, as QEMU shows them by the manual's names, and
    what is to be said of them.

    Raises SourceError for a processor in a state that is not known here, ProtocolError where a
    register is missing.
    """
    state = shown.get("cpsr", 0)
    if state & AARCH32:
        raise SourceError(
            f"the processor is in AArch32 (PSTATE is {state:#x}), whose tables are not known here"
        )
    host = _is_host(shown)
    of = "EL2" if host else "EL1"
    names = {name: f"{name.upper()}_{of}" for name in ("ttbr0", "ttbr1", "tcr", "mair", "sctlr")}
    names |= {f"mmfr{number}": f"ID_AA64MMFR{number}_EL1" for number in range(3)}
    if missing := [name for name in names.values() if name not in shown]:
        raise ProtocolError(f"QEMU's gdb stub does not show {', '.join(missing)}", "")
    _refuse_unknown(f"TCR2_{of}", shown.get(f"TCR2_{of}", 0))
    values = {field: shown[name] for field, name in names.items()}
    notes: tuple[str, ...] = (
        ("The host's regime, EL2&0 (HCR_EL2.E2H=1): TTBR0_EL2 and TTBR1_EL2",) if host else ()
    )
    if shown.get(f"TCR2_{of}", 0) & (E0POE | POE):
        notes += (
            f"TCR2_{of} has overlays on (FEAT_S1POE): rights that POR_EL0 and POR_{of} withhold"
            " are not known here",
        )
    return SystemRegisters(**values, pstate=_as_at_el1(state, values)), notes


def authenticates_pointers(shown: Mapping[str, int]) -> bool:
    """Whether the processor has FEAT_PAuth, and so TCR_EL1.TBIDx (ID_AA64ISAR1_EL1.API and APA,
    ID_AA64ISAR2_EL1.APA3)."""
    one, two = (shown.get(f"ID_AA64ISAR{number}_EL1", 0) for number in (1, 2))
    return bool(one & 0xFF0 or two & 0xF000)


def last_exception(shown: Mapping[str, int], el: int) -> dict[str, int]:
    """What a snapshot has of the last exception that the processor took to EL1, or to EL2 that is
    the host's: esr, far, elr and spsr."""
    names = {name: f"{name.upper()}_EL{el}" for name in ("esr", "far", "elr", "spsr")}
    return {ours: shown[theirs] for ours, theirs in names.items() if theirs in shown}


def _is_host(shown: Mapping[str, int]) -> bool:
    """Whether EL2&0 translates, which has two roots as EL1&0 has, under VHE."""
    el, hcr = shown.get("cpsr", 0) >> 2 & 3, shown.get("HCR_EL2", 0)
    if el == EL3:
        raise SourceError("the processor is at EL3, whose tables are not known here")
    if el == EL2 and not hcr & E2H:
        raise SourceError("the processor is at EL2 without VHE, whose tables are not known here")
    if el == EL2 or (hcr & E2H and hcr & TGE):
        return True
    if hcr & TGE:
        raise SourceError(
            f"paging is off: HCR_EL2 is {hcr:#x}, TGE=1 without E2H=1, by which EL0 translates"
            " nothing"
        )
    if hcr & (VM | DC):
        raise SourceError(
            f"the processor runs the guest of a hypervisor (HCR_EL2 is {hcr:#x}), whose addresses"
            " are translated in two stages, which is not known here"
        )
    return False


def _refuse_unknown(name: str, value: int) -> None:
    for bit, means in (
        (PIE, "PIE=1: rights are those that PIR_EL1 and PIRE0_EL1 give (FEAT_S1PIE)"),
        (D128, "D128=1: descriptors have 128 bits"),
    ):
        if value & bit:
            raise SourceError(f"{name} {value:#x} has {means}, which is not known here")


def _as_at_el1(state: int, values: Mapping[str, int]) -> int:
    """PSTATE.PAN and UAO as EL1 has them: of a processor at EL0, as after an exception to EL1
    (AArch64.TakeException)."""
    if state >> 2 & 3:
        return state
    sets = values["mmfr1"] >> 20 & 15 and not values["sctlr"] & SPAN
    return state & ~PSTATE_UAO | (PSTATE_PAN if sets else 0)
