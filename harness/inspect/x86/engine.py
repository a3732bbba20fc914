"""How the engine that runs a guest reads its tables, where it departs from the rules.

A guest's own tables are looked at to see what its machine makes of them.  Where a known departure
gives some entry of the space another meaning, the tables are read as the engine reads them, and the
departure is named; where it gives none, the rules stand and nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Final

import numpy as np

from harness.check.held import HeldMemory
from harness.check.quirk import Quirk, expected_of
from harness.check.x86.quirks import (
    GIGABYTE_PAGE_WITHOUT_CPUID,
    LARGE_PAGE_ADDRESS,
    PDPTES_ARE_ENTRIES,
    PML4E_BIT_8_IGNORED,
    read_as,
)
from harness.inspect.held import held_layers, hold_tables
from harness.paging import bulk
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu, Mode

_READINGS: Final = (GIGABYTE_PAGE_WITHOUT_CPUID, PML4E_BIT_8_IGNORED, LARGE_PAGE_ADDRESS)
"""Departures in how entries read, besides that of PDPTEs."""


def as_read(
    cpu: Cpu,
    memory: HeldMemory,
    engine: str,
    version: tuple[int, ...],
    given: Mapping[str, int],
) -> tuple[Cpu, tuple[str, ...]]:
    """The CPU as which an engine reads the tables of a space, and why it is not the one given, a
    sentence for each departure.

    Tables that only the engine's reading leads to are read, too.  What is `given` of the CPU state
    stays as it is.
    """
    notes = []
    if cpu.pdptes_checked is not None:
        if expected_of(PDPTES_ARE_ENTRIES, engine, version):
            cpu = read_as(PDPTES_ARE_ENTRIES, cpu)
            notes.append(_sentence(PDPTES_ARE_ENTRIES, engine))
        hold_tables(memory, cpu.roots)
    for quirk in _READINGS:
        other = read_as(quirk, cpu)
        changed = {
            one.name for one in fields(cpu) if getattr(cpu, one.name) != getattr(other, one.name)
        }
        if not changed or changed & given.keys() or not expected_of(quirk, engine, version):
            continue
        if _differ(cpu, other, memory):
            cpu = other
            hold_tables(memory, cpu.roots)
            notes.append(_sentence(quirk, engine))
    return cpu, (*notes, *_refused(cpu))


def as_marked(cpu: Cpu) -> tuple[Cpu, tuple[str, ...]]:
    """The same where the engine is not known: A in a PDPTE shows one that reads PDPTEs at every
    walk, since no processor loads such a PDPTE."""
    if not any(raw & formats.P and raw & formats.A for raw in cpu.pdptes):
        return cpu, tuple(_refused(cpu))
    cpu = read_as(PDPTES_ARE_ENTRIES, cpu)
    assumed = "A is set in a PDPTE, so QEMU's TCG is assumed to have run this guest."
    return cpu, (f"{assumed} {_sentence(PDPTES_ARE_ENTRIES, 'tcg')}", *_refused(cpu))


def _refused(cpu: Cpu) -> Iterator[str]:
    """Why PDPTEs that are malformed also to this CPU are none that a processor has loaded."""
    if cpu.mode is not Mode.PAE:
        return
    wrong = {n: bits for n, raw in enumerate(cpu.pdptes) if (bits := cpu.malformed_pdpte(raw))}
    if not wrong:
        return
    named = ", ".join(
        f"PDPTE {n} {cpu.pdptes[n]:#x} ({bits:#x} is reserved)" for n, bits in wrong.items()
    )
    checked = read_as(PDPTES_ARE_ENTRIES, cpu).pdpte.reserved_mask
    ignored = any(bits & ~checked for bits in wrong.values())
    others = "; QEMU's TCG ignores bits 2:1 and 8:5" if ignored else " or QEMU's TCG"
    yield (
        f"A processor that loads PDPTEs refuses these: MOV CR3 raises #GP(0) (SDM volume 3A, 4.4.1)"
        f" for {named}. The tables are shown as they stand, to a machine that reads PDPTEs at every"
        f" walk: an AMD processor under nested paging (APM volume 2, 15.25.10){others}"
    )


def _sentence(quirk: Quirk, engine: str) -> str:
    return (
        f"{quirk.rule} {engine.upper()} departs from that ({quirk.name}): {quirk.departs}"
        " The tables are shown as it reads them"
    )


def _differ(one: Cpu, other: Cpu, memory: HeldMemory) -> bool:
    """Whether some entry of the space that the other CPU reads is read otherwise by the first; the
    tables are read as far down as one can be."""
    format = other.format
    levels = zip(one.format.levels, format.levels, strict=True)
    apart = [level for level, (here, there) in enumerate(levels) if here != there]
    layers = held_layers(memory, other.roots)
    # Layers end where no table follows.
    for level, tables in zip(reversed(range(len(format.levels))), layers, strict=False):
        if level in apart:
            each = format.entry_bytes
            offsets = np.arange(format.levels[level].entries, dtype=np.uint64) * np.uint64(each)
            for table in tables.tables:
                raw, _ = memory.gather(table + offsets, each)
                kinds = bulk.kinds(format, level, raw)
                if (kinds != bulk.kinds(one.format, level, raw)).any():
                    return True
        if level <= min(apart, default=level):
            break
    return False
