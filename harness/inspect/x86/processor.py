"""From the registers that a source has, and those given in their place, to the state of a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from harness.inspect.snapshot import SourceError
from harness.inspect.tour import lines
from harness.inspect.x86 import vmcoreinfo
from harness.paging.address import Physical
from harness.paging.memory import Memory
from harness.paging.table import Table
from harness.paging.x86.cpu import MARKS, WIDTHS, Cpu, Cr0, Cr3, Cr4, Efer, Mode, reserved_in_pdpte
from harness.paging.x86.formats import ADDRESS, P
from harness.paging.x86.load import read_pdptes, reserved_in_cr3

AC = 1 << 18
"""EFLAGS.AC (SDM volume 3A, 2.3)."""

CODE_64 = 1 << 21
"""L in the second word of a descriptor of code: it is of 64 bits (SDM volume 3A, 3.4.5)."""


_LATER = Cr3.LAM_U48 | Cr3.LAM_U57 | Cr3.KEEP_TLB
"""Bits of CR3 that have a use on some processors, whether or not the source tells of which."""


def cpu_with(usual: Cpu, registers: Mapping[str, int], memory: Memory) -> Cpu:
    """The state of `usual` but for these registers, by the names of its fields.

    In PAE paging the PDPTEs are those in memory now: what the processor has loaded is not told.
    Where one of them cannot be loaded, they are those of a machine that reads them at every walk
    and checks all that is reserved; `engine` has what is known of one.

    Raises SourceError where paging is off, or no machine can be in that state.
    """
    if not registers.get("cr0", usual.cr0) & Cr0.PG:
        raise SourceError(
            f"paging is off (CR0 is {registers['cr0']:#x}): addresses are physical, and there are"
            " no tables to look at"
        )
    if registers.get("maxphyaddr", usual.maxphyaddr) not in WIDTHS:
        raise SourceError(
            f"maxphyaddr is {registers['maxphyaddr']}: physical addresses have {WIDTHS[0]} to"
            f" {WIDTHS[-1]} bits"
        )
    try:
        cpu = replace(usual, **registers)  # type: ignore[arg-type]
        if cpu.long and (wrong := cpu.cr3 & reserved_in_cr3(cpu) & ~_LATER):
            raise SourceError(
                f"CR3 {cpu.cr3:#x} cannot be loaded: {wrong:#x} is reserved, since MAXPHYADDR is"
                f" {cpu.maxphyaddr}{_as_mark(cpu, wrong)}"
            )
        if cpu.mode is Mode.PAE:
            pdptes = read_pdptes(memory, cpu.cr3)
            refused = any(reserved_in_pdpte(raw, cpu.maxphyaddr) for raw in pdptes)
            checked = cpu.pdpte.reserved_mask if refused else None
            cpu = replace(cpu, pdptes=pdptes, pdptes_checked=checked)
    except ValueError as error:
        raise SourceError(str(error)) from None
    return cpu


def _as_mark(cpu: Cpu, wrong: int) -> str:
    """The option by which a bit that is reserved in CR3 is what marks encrypted memory."""
    bit = wrong.bit_length() - 1
    if cpu.mark is not None or wrong != 1 << bit or bit not in MARKS:
        return ""
    return f"; if it marks encrypted memory (SME, SEV), give --c-bit {bit}"


def tables_of(segments: Mapping[str, tuple[int, int, int, int]]) -> dict[str, int]:
    """Where the tables of segments are, and the bases of code and stack, by the names in
    `Snapshot.registers`: of selector, base, limit and flags (the second word of a descriptor) of
    GDT, IDT, TR, CS and SS.

    A TR with the selector 0 was never loaded.  For 64-bit code the bases of CS and SS count as 0
    (SDM volume 3A, 3.4.4).
    """
    found = {}
    flat = "CS" in segments and segments["CS"][3] & CODE_64
    for name, (selector, base, limit, _) in segments.items():
        if name in ("CS", "SS"):
            found[f"{name.lower()}_base"] = 0 if flat else base
        elif name != "TR":
            found |= {name.lower(): base, f"{name.lower()}_limit": limit}
        elif selector:
            found["tss"] = base
    return found


def marked(
    text: bytes, given: Mapping[str, int]
) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
    """The bit that marks encrypted memory as VMCOREINFO has it, unless one is given; what is
    assumed by that, and what cannot be used."""
    bit, wrong = vmcoreinfo.encryption(text)
    if {"c_bit", "shared_bit"} & given.keys():
        return {}, (), ()
    if bit is None:
        return {}, (), (wrong,) if wrong else ()
    said = f"bit {bit} marks encrypted memory, as VMCOREINFO has it (--c-bit)"
    return {"c_bit": bit}, (said,), ()


def mark_in(
    registers: Mapping[str, int], given: Mapping[str, int], memory: Memory
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The bit that marks encrypted memory as CR3 and the entries of its table show it, where none
    is given: CR3 leads to memory without the bit alone, and every entry that is present has it; and
    what is assumed by that."""
    cr3 = registers.get("cr3", 0) & ADDRESS
    bit = cr3.bit_length() - 1
    long = registers.get("efer", Efer.LMA) & Efer.LMA and registers.get("cr4", Cr4.PAE) & Cr4.PAE
    named = {"c_bit", "shared_bit"} & given.keys()
    if bit not in MARKS or not long or named or memory.load(Physical(cr3), 8) is not None:
        return {}, ()
    table = Table(Cpu.long_mode(4, 0).format, Physical(cr3 ^ 1 << bit), 3)
    present = [line.raw for line in lines(memory, table) if (line.raw or 0) & P]
    if not present or not all(raw is not None and raw >> bit & 1 for raw in present):
        return {}, ()
    said = f"bit {bit} marks encrypted memory: CR3 and every entry of its table have it (--c-bit)"
    return {"c_bit": bit}, (said,)


def unseen_model(cpu: Cpu, given: Mapping[str, int], source: str) -> Iterator[str]:
    """What is assumed of the model of the processor by a source that does not tell it."""
    if cpu.long and "page1gb" not in given:
        yield f"the processor has 1G pages, since {source} does not record CPUID (--no-page1gb)"


def unseen_rights(cpu: Cpu, known: Mapping[str, int], source: str) -> Iterator[str]:
    """What is assumed of what accesses depend on besides tables, where it counts, a source does not
    tell it, and it is not known either: EFLAGS.AC, and the rights of protection keys (SDM volume
    3A, 4.6)."""
    if cpu.smap and "ac" not in known:
        yield f"EFLAGS.AC=0, since {source} does not record it (fault --ac)"
    if cpu.long and cpu.cr4 & Cr4.PKE and "pkru" not in known:
        yield f"every key grants all, since {source} does not record PKRU"
    if cpu.long and cpu.cr4 & Cr4.PKS:
        yield f"every key grants all, since {source} does not record IA32_PKRS"
