"""PTCR, and the first doubleword of a process table entry, bit by bit ("Partition Table Control
Register", "Process Table")."""

from __future__ import annotations

from typing import Final

from harness.inspect.decode import Part, Register, Role
from harness.paging.format import bits
from harness.paging.power.cpu import (
    ADDRESS_BITS,
    ROOT_BASE,
    ROOT_BITS,
    ROOT_SIZE,
    TABLE_BASE,
    TABLE_SIZE,
    Cpu,
    root_address,
    tree_bits,
)

PARTITIONS: Final = "Partition Table Control Register"
PROCESSES: Final = "Process Table"


def read(_: Cpu, name: str, raw: int) -> Register:
    """What a value of ptcr says, or of quadrant0 or quadrant3, as the options call the first
    doublewords of the entries of the process in PIDR and of process 0."""
    return _ptcr(raw) if name == "ptcr" else _entry(name, raw)


def _ptcr(raw: int) -> Register:
    base, size = raw & TABLE_BASE, 1 << (raw & TABLE_SIZE) + 12
    parts = (
        _ignored(raw, bits(63, 60), PARTITIONS),
        Part(TABLE_BASE, "PATB", base, f"the partition table is at {base:#x}", Role.ADDRESS,
             PARTITIONS, ""),
        _ignored(raw, bits(11, 5), PARTITIONS),
        Part(TABLE_SIZE, "PATS", raw & TABLE_SIZE, f"it has {size:#x} bytes", Role.KIND,
             PARTITIONS, ""),
    )  # fmt: skip
    return Register("PTCR", raw, "the partition table is", base, 0, parts)


def _entry(name: str, raw: int) -> Register:
    base, span, root = root_address(raw), tree_bits(raw), raw & ROOT_SIZE
    why = "" if span == ADDRESS_BITS else f": there are trees of {ADDRESS_BITS} bits alone"
    few = "" if root == ROOT_BITS else f": roots have 1 << {ROOT_BITS}"

    def part(mask: int, called: str, value: int, meaning: str, role: Role = Role.KIND) -> Part:
        return Part(mask, called, value, meaning, role, PROCESSES, "")

    parts = (
        _ignored(raw, bits(63), PROCESSES),
        part(bits(62, 61), "RTS", raw >> 61 & 3, f"with the bits below, {span} bits{why}"),
        _ignored(raw, bits(60), PROCESSES),
        part(ROOT_BASE, "RPDB", raw & ROOT_BASE, f"the root is at {base:#x}", Role.ADDRESS),
        part(bits(7, 5), "RTS", raw >> 5 & 7, f"the tree has {span} bits{why}"),
        part(ROOT_SIZE, "RPDS", root, f"the root has 1 << {root} entries{few}"),
    )
    whose = "the process in PIDR" if name == "quadrant0" else "process 0"
    return Register(f"process table entry of {whose}", raw, "the root table is", base, 0, parts)


def _ignored(raw: int, mask: int, section: str) -> Part:
    why = "reserved, and not checked"
    value = (raw & mask) // (mask & -mask)
    return Part(mask, "reserved", value, why, Role.IGNORED, section, why)
