"""The guests in which x86's tables are proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from harness.check.validation import DEADLINE
from harness.check.x86.window import with_pdptes
from harness.inspect.prove import Part, Prover, room
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.machine.errors import Misuse
from harness.machine.machine import Engine, Processor
from harness.machine.ram import ARENA, ARENA_UNIT, DEVICES, LARGEST_RAM
from harness.machine.stub import StubImage
from harness.machine.x86.engines import reads_as_amd, why_long_mode_only
from harness.machine.x86.guest import Guest
from harness.machine.x86.registry import engine_named
from harness.machine.x86.stub import BUILD
from harness.paging.address import Span
from harness.paging.bulk import Leaves
from harness.paging.memory import BufferMemory
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer, Mode
from harness.paging.x86.load import read_pdptes

_CR0: Final = Cr0.PE | Cr0.WP | Cr0.PG
_CR4: Final = Cr4.PSE | Cr4.PAE | Cr4.PGE | Cr4.LA57 | Cr4.SMEP | Cr4.SMAP | Cr4.PKE | Cr4.PKS
_EFER: Final = Efer.LME | Efer.LMA | Efer.NXE
"""The bits that the machine loads; the others say nothing about tables, but for LAM and LASS."""

_FEATURES: Final = {
    Cr4.LA57: "la57",
    Cr4.SMEP: "smep",
    Cr4.SMAP: "smap",
    Cr4.PKE: "pku",
    Cr4.PKS: "pks",
}
"""What a processor must have for a bit of CR4."""


def loadable(snapshot: Snapshot) -> Snapshot:
    """The snapshot with the PDPTEs of PAE paging in registers, as MOV CR3 loads them, where the
    source reads them at every walk.

    Raises QuestionError for those that cannot be loaded, and where none is present.
    """
    cpu = snapshot.cpu
    if cpu.mode is Mode.PAE and cpu.pdptes_checked is not None:
        try:
            pdptes = read_pdptes(snapshot.memory, cpu.base)
            pdptes = tuple(raw & ~formats.A for raw in pdptes)  # TCG sets it, no one else's
            cpu = replace(cpu, pdptes=pdptes, pdptes_checked=None)
        except ValueError as error:
            raise QuestionError(f"{error}: no guest can have these tables") from None
    if not cpu.roots:
        raise QuestionError(f"no PDPTE at {cpu.base:#x} is present: nothing is mapped")
    return snapshot if cpu is snapshot.cpu else replace(snapshot, cpu=cpu)


def new_guest(snapshot: Snapshot, parts: Sequence[Part], engine: str, program: str | None) -> Guest:
    """A guest with memory where the tables are, and a processor like the source's."""
    cpu, machine = snapshot.cpu, engine_named(engine)
    model = processor_for(machine, cpu)
    (part,) = parts  # its tables have one format
    most = largest_window(snapshot, part.leaves)
    base, size = room(cpu, parts, min(machine.largest_ram, most))
    image = StubImage.load(BUILD).moved(base)
    guest = Guest(
        engine, ram_bytes=size, cpu=model, program=program, image=image, deadline=DEADLINE
    )
    if not cpu.long and (why := why_long_mode_only(guest)) is not None:
        guest.close()
        raise Misuse(f"these are tables of {cpu.format.name}. {why} Choose another engine")
    return guest


def where(guest: Guest) -> tuple[range, ...]:
    """Where guests of this kind can have memory."""
    return range(DEVICES.start), range(DEVICES.stop, guest.engine.largest_ram)


def loaded(own: Cpu, guest: Guest, memory: BufferMemory) -> Cpu:
    """The state with the PDPTEs in the guest's memory, of those tables alone that are there."""
    if own.mode is not Mode.PAE:
        return own
    at = Span.of(own.base, formats.PDPTES * formats.PDPTE_BYTES)
    if (why := PROVER.why_not_there(guest, at)) is not None:
        raise QuestionError(f"the PDPTEs are at {own.base:#x}, {why}")
    return with_pdptes(memory, own, own.pdptes)


def largest_window(snapshot: Snapshot, leaves: Leaves) -> int:
    """The most RAM of a guest that shows all of it to the stub in a hole of these tables.

    Outside long mode the longest run of empty slots of a root, and half of it where the tables do
    not need more: it may be divided by the addresses at which the stub is entered.
    """
    cpu: Cpu = snapshot.cpu
    if cpu.long:
        return LARGEST_RAM
    longest = 0
    for root in cpu.roots:
        words, _ = snapshot.memory.gather(
            np.array([slot.address for _, slot in root.slots()], np.uint64), cpu.format.entry_bytes
        )
        taken = np.flatnonzero(np.concatenate([[1], words, [1]]))
        longest = max(longest, int(np.diff(taken).max()) - 1)
    hole = longest * cpu.format.levels[-1].size
    last = int(max(leaves.tables.address.max(initial=0), cpu.base))
    needed = (last // ARENA_UNIT + 1) * ARENA_UNIT + len(ARENA)
    return max(hole // 2 // ARENA_UNIT * ARENA_UNIT, needed)


def processor_for(machine: Engine, cpu: Cpu) -> str | None:
    """The processor of the engine's that is most like the source's; None for its usual one."""
    width = Processor(maxphyaddr=cpu.maxphyaddr, la57=bool(cpu.cr4 & Cr4.LA57))
    asked = (replace(width, page1gb=cpu.page1gb, pse36=cpu.pse36, amd=cpu.amd), width)
    return next((found for one in asked if (found := machine.processor(one)) is not None), None)


def own(cpu: Cpu, guest: Guest) -> tuple[Cpu, list[str]]:
    """The state that the guest takes in place of the snapshot's, and how its processor differs."""
    info = guest.info
    lacks = [name for bit, name in _FEATURES.items() if cpu.cr4 & bit and not info.has(name)]
    if cpu.nxe and not info.has("nx"):
        lacks.append("nx")
    if lacks:
        raise Misuse(
            f"{guest.engine.name} has a processor without {' and '.join(lacks).upper()}, with which"
            " these tables are read: choose another engine"
        )
    own = replace(
        cpu,
        cr0=cpu.cr0 & _CR0,
        cr3=cpu.base,
        cr4=cpu.cr4 & _CR4,
        efer=cpu.efer & _EFER,
        lam=False,
        c_bit=None,
        shared_bit=None,
        maxphyaddr=info.physical_bits,
        page1gb=info.has("gigabyte_pages"),
        pse36=info.has("pse36"),
        amd=reads_as_amd(info),
    )
    notes = [
        f"The guest's processor has {what}, unlike that of the source: entries were compared as it"
        " reads them."
        for what, differs in (
            (f"MAXPHYADDR {own.maxphyaddr}", own.maxphyaddr != cpu.maxphyaddr),
            (
                f"{'' if own.page1gb else 'no '}1G pages",
                cpu.long and own.page1gb != cpu.page1gb,
            ),
            (
                f"{'' if own.pse36 else 'no '}4M pages above 4 GiB (PSE-36)",
                cpu.mode is Mode.BITS_32 and own.pse36 != cpu.pse36,
            ),
            (f"{'AMD' if own.amd else 'Intel'}'s reading of entries", own.amd != cpu.amd),
        )
        if differs
    ]
    for what, on in (("masking (LAM)", cpu.lam), ("space separation (LASS)", cpu.lass)):
        if on:
            notes.append(f"Linear-address {what} is off in the guest.")
    if cpu.mark is not None:
        notes.append(
            f"Memory is not encrypted in the guest: bit {cpu.mark.bit} ({cpu.mark.name}) is clear"
            " in its entries and in CR3."
        )
    return own, notes


PROVER: Final = Prover(
    "a PC", new_guest, own, loadable, loaded, marked=lambda cpu: cpu.marked, where=where
)
