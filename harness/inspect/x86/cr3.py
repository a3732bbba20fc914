"""CR3, bit by bit: what each one is in a paging mode, and where it leads."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from harness.inspect.decode import Part, Register, Role, runs
from harness.inspect.snapshot import QuestionError
from harness.paging.x86.cpu import Cpu, Cr3, Cr4, Mode
from harness.paging.x86.formats import LEGACY_ADDRESS_BITS, PCD, PWT
from harness.paging.x86.load import PCID, reserved_in_cr3

WIDTH: Final = 64
"""Bits of the register."""

_TABLES: Final = {Mode.BITS_32: "table 4-3", Mode.PAE: "table 4-7"}
_LONG: Final = {False: "table 4-12", True: "table 4-13"}
"""Where the manual describes CR3, outside long mode and in it, there by CR4.PCIDE."""

_LAM: Final = {Cr3.LAM_U57: (57, "LAM_U57"), Cr3.LAM_U48: (48, "LAM_U48")}
"""How many bits of a user pointer are left by each bit of LAM, and its name."""


class _Label(NamedTuple):
    """What a bit is: neighbours with one label are one part. `clear` is said of it where it is
    clear, and `set` where it is set."""

    name: str
    role: Role
    clear: str
    set: str


def read(cpu: Cpu) -> Register:
    """What the CPU's CR3 says in its mode (SDM 4.3, 4.4.1, 4.5.2).

    Raises QuestionError for a value of more than 64 bits.
    """
    raw = cpu.cr3
    if not 0 <= raw < 1 << WIDTH:
        raise QuestionError(f"CR3 has {WIDTH} bits, and {raw:#x} more")
    what = "the PDPTEs are" if cpu.mode is Mode.PAE else "the root table is"
    labels = [_label(cpu, 1 << bit, what) for bit in range(WIDTH)]
    section = _LONG[bool(cpu.cr4 & Cr4.PCIDE)] if cpu.long else _TABLES[cpu.mode]
    parts = []
    for label, mask in runs(labels):
        value = raw & mask if label.role is Role.ADDRESS else (raw & mask) // (mask & -mask)
        said = label.set.format(value=value) if value else label.clear
        reason = said if label.role in (Role.RESERVED, Role.IGNORED) else ""
        parts.append(Part(mask, label.name, value, said, label.role, section, reason))
    reserved = raw & reserved_in_cr3(cpu) if cpu.long else 0
    assumed = _PCIDE_CLEAR if cpu.long and not cpu.cr4 & Cr4.PCIDE else ""
    return Register("CR3", raw, what, cpu.base, reserved, tuple(parts), assumed)


_PCIDE_CLEAR: Final = (
    "CR4.PCIDE is 0: with 1, bits 11:0 of CR3 are the PCID, and bit 63 keeps the TLB"
)


def read_raw(cpu: Cpu, raw: int) -> Register:
    """What a value of CR3 says to this CPU; raises as `read` does."""
    return read(replace(cpu, cr3=raw))


def _label(cpu: Cpu, mask: int, what: str) -> _Label:
    if cpu.mark is not None and mask == cpu.marked:
        sides = ("encrypted", "not encrypted") if cpu.mark.name == "C" else ("shared", "private")
        return _Label(cpu.mark.name, Role.MARK, f"{what} {sides[1]}", f"{what} {sides[0]}")
    if mask in _LAM and cpu.long:
        return _lam(cpu, mask)
    if cpu.long and mask & reserved_in_cr3(cpu):
        return _Label("reserved", Role.RESERVED, "must be 0", "loading it raises #GP(0)")
    if mask >> LEGACY_ADDRESS_BITS and not cpu.long:
        return _same("ignored", Role.IGNORED, "ignored outside long mode")
    if mask == Cr3.KEEP_TLB:  # with CR4.PCIDE: without it the bit is reserved
        return _Label(
            "KEEP_TLB",
            Role.USE,
            "loading it drops what this PCID has in the TLB",
            "loading it keeps the TLB; the bit itself is not stored",
        )
    if cpu.long and cpu.cr4 & Cr4.PCIDE and mask & PCID:
        return _Label(
            "PCID", Role.KEY, "address space 0 of the TLB", "address space {value:#x} of the TLB"
        )
    return _low(cpu, mask, what)


def _lam(cpu: Cpu, mask: int) -> _Label:
    width, name = _LAM[Cr3(mask)]
    means = f"user pointers have {width} bits of address, and metadata up to bit 62"
    clear = f"clear, else {means}"
    if mask == Cr3.LAM_U48 and cpu.cr3 & Cr3.LAM_U57:
        means = "it says nothing beside LAM_U57"
    if cpu.lam:
        return _Label(name, Role.USE, clear, means)
    return _Label(
        name,
        Role.RESERVED,
        "must be 0, on a CPU without LAM",
        f"loading it raises #GP(0), on a CPU without LAM; with it, {means}",
    )


def _low(cpu: Cpu, mask: int, what: str) -> _Label:
    """The address, and what is below it."""
    pdptes = cpu.mode is Mode.PAE
    if mask >= (1 << 5 if pdptes else 1 << 12):
        return _Label("address", Role.ADDRESS, f"{what} at 0", f"{what} at {{value:#x}}")
    name = {PWT: "PWT", PCD: "PCD"}.get(mask)
    if name is None:
        return _same("ignored", Role.IGNORED, "ignored")
    if pdptes:
        return _same(name, Role.IGNORED, "ignored in PAE paging")
    return _same(name, Role.TYPE, "part of the PAT index of the root table")


def _same(name: str, role: Role, said: str) -> _Label:
    return _Label(name, role, said, said)
