"""How the engine that runs a guest reads its tables, where it departs from the rules.

A guest's own tables are looked at to see what its machine makes of them.  Where a known departure
gives some entry of the space another meaning, the tables are read as the engine reads them, and the
departure is named; where it gives none, the rules stand and nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from harness.check.held import HeldMemory
from harness.check.quirks import (
    GIGABYTE_PAGE_WITHOUT_CPUID,
    LARGE_PAGE_ADDRESS,
    PDPTES_ARE_ENTRIES,
    PML4E_BIT_8_IGNORED,
    WIDEST_PSE36,
    Quirk,
    expected_of,
)
from harness.inspect.held import MOST_TABLES, hold_tables
from harness.paging import bulk
from harness.paging.memory import Memory
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu, Mode

_READINGS: Final[tuple[tuple[Quirk, frozenset[Mode], Mapping[str, Any]], ...]] = (
    (GIGABYTE_PAGE_WITHOUT_CPUID, frozenset({Mode.LEVEL_4, Mode.LEVEL_5}), {"page1gb": True}),
    (PML4E_BIT_8_IGNORED, frozenset({Mode.LEVEL_4, Mode.LEVEL_5}), {"amd": False}),
    (
        LARGE_PAGE_ADDRESS,
        frozenset({Mode.BITS_32}),
        {"pse36": True, "maxphyaddr": WIDEST_PSE36},
    ),
)
"""Departures in how entries read: in which modes, and the processor that would read them so."""


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
            cpu = _walked(cpu)
            notes.append(_sentence(PDPTES_ARE_ENTRIES, engine))
        hold_tables(memory, cpu.roots)
    for quirk, modes, fields in _READINGS:
        other = replace(cpu, **fields)
        asked = cpu.mode in modes and other != cpu and not fields.keys() & given.keys()
        if not (asked and expected_of(quirk, engine, version)):
            continue
        hold_tables(memory, other.roots)
        if _differ(cpu, other, memory):
            cpu = other
            notes.append(_sentence(quirk, engine))
    return cpu, (*notes, *_refused(cpu))


def as_marked(cpu: Cpu) -> tuple[Cpu, tuple[str, ...]]:
    """The same where the engine is not known: A in a PDPTE shows one that reads PDPTEs at every
    walk, since no processor loads such a PDPTE."""
    if cpu.pdptes_checked is None:
        return cpu, ()
    if not any(raw & formats.P and raw & formats.A for raw in cpu.pdptes):
        return cpu, tuple(_refused(cpu))
    cpu = _walked(cpu)
    seen = ", which this is taken to be: A is set in a PDPTE"
    return cpu, (_sentence(PDPTES_ARE_ENTRIES, "tcg") + seen, *_refused(cpu))


def _walked(cpu: Cpu) -> Cpu:
    """The CPU as TCG reads its PDPTEs."""
    return replace(cpu, pdptes_checked=formats.bits(63, cpu.maxphyaddr))


def _refused(cpu: Cpu) -> Iterator[str]:
    """Why PDPTEs that are malformed also to this CPU are none that a processor has loaded."""
    wrong = [
        f"PDPTE {number} {raw:#x} ({bits:#x} is reserved)"
        for number, raw in enumerate(cpu.pdptes)
        if cpu.mode is Mode.PAE and (bits := cpu.malformed_pdpte(raw))
    ]
    if wrong:
        yield (
            f"MOV CR3 raises #GP(0) (SDM volume 3A, 4.4.1), since it cannot load"
            f" {', '.join(wrong)}. The tables are shown as a machine has them that reads PDPTEs at"
            " every walk: QEMU's TCG, or an AMD processor under nested paging (APM volume 2,"
            " 15.25.10)"
        )


def _sentence(quirk: Quirk, engine: str) -> str:
    return (
        f"{quirk.rule} {engine.upper()} departs from that ({quirk.name}): {quirk.departs}"
        " The tables are shown as it reads them"
    )


def _differ(one: Cpu, other: Cpu, memory: Memory) -> bool:
    """Whether some entry of the space that the other CPU reads is read otherwise by the first."""
    format = other.format
    levels = zip(one.format.levels, format.levels, strict=True)
    apart = [level for level, (here, there) in enumerate(levels) if here != there]
    layers = bulk.layers(memory, other.roots, MOST_TABLES)
    for level, tables in zip(reversed(range(len(format.levels))), layers, strict=True):
        if level in apart:
            each = format.entry_bytes
            offsets = np.arange(format.levels[level].entries, dtype=np.uint64) * np.uint64(each)
            for table in tables:
                raw, _ = memory.gather(table + offsets, each)
                kinds = bulk.kinds(format, level, raw)
                if (kinds != bulk.kinds(one.format, level, raw)).any():
                    return True
        if level <= min(apart, default=level):
            break
    return False
