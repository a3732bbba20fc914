"""The guests in which RISC-V's tables are proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from harness.check.riscv.layouts import cpu_of
from harness.check.validation import DEADLINE
from harness.inspect.prove import Part, Prover, room
from harness.inspect.snapshot import Snapshot
from harness.machine.errors import Misuse
from harness.machine.registry import engine_named
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.processor import RAM_BASE
from harness.machine.riscv.qemu import BUILDS, TCG, program_for
from harness.machine.stub import StubImage
from harness.paging.riscv.cpu import Cpu, Envcfg


def new_guest(snapshot: Snapshot, parts: Sequence[Part], engine: str, program: str | None) -> Guest:
    """A guest with memory where the tables are, and a processor like the source's."""
    cpu: Cpu = snapshot.cpu
    engine_named(engine, cpu.architecture)
    base, size = room(cpu, parts, TCG[cpu.xlen].largest_ram, RAM_BASE)
    return Guest(
        cpu.xlen,
        ram_bytes=size,
        program=program_for(cpu.xlen, program),
        image=StubImage.load(BUILDS[cpu.xlen]).moved(base),
        deadline=DEADLINE,
    )


def own(cpu: Cpu, guest: Guest) -> tuple[Cpu, list[str]]:
    """The state that the guest takes in place of the snapshot's: SUM and MXR are tried each way,
    and pointers are not masked."""
    info = guest.info
    if cpu.mode.value not in info.modes:
        raise Misuse(f"{guest.engine.maker} has a hart without {cpu.mode.value.capitalize()}")
    most = cpu_of(cpu.mode.value, info, cpu.base)
    if cpu.pbmte and not most.pbmte:
        raise Misuse(
            f"{guest.engine.maker} has a hart without Svpbmt, with which these tables are read"
        )
    bits = (Envcfg.PBMTE if cpu.pbmte else 0) | (Envcfg.ADUE if cpu.sets_marks else 0)
    own = replace(most, satp=cpu.satp, menvcfg=most.menvcfg & bits)
    notes = [
        f"The guest's hart {what}, unlike that of the source: entries were compared as it reads"
        " them."
        for what, differs in (
            (f"has {'' if own.svnapot else 'no '}Svnapot", own.svnapot != cpu.svnapot),
            (
                f"has {'' if own.svrsw60t59b else 'no '}Svrsw60t59b",
                own.svrsw60t59b != cpu.svrsw60t59b,
            ),
            (
                f"{'sets' if own.sets_marks else 'does not set'} A and D",
                own.sets_marks != cpu.sets_marks,
            ),
        )
        if differs
    ]
    if cpu.pmlen(user=True) or cpu.pmlen(user=False):
        notes.append("Pointer masking is off in the guest.")
    return own, notes


PROVER: Final = Prover("virt", new_guest, own)
