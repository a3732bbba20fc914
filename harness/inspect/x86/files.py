"""Files that hold the physical memory of an x86 machine, and the registers that go with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from harness.inspect.snapshot import RESERVING, Snapshot, SourceError
from harness.inspect.sources.ram import WORD, Held
from harness.inspect.x86 import vmcoreinfo
from harness.inspect.x86.doubt import doubt
from harness.inspect.x86.processor import cpu_with, mark_in, marked, unseen_model, unseen_rights
from harness.paging.x86.cpu import Cpu, Cr4, Efer


def snapshot(held: Held, registers: Mapping[str, int], assumed: Sequence[str]) -> Snapshot:
    """The memory in files, and a CPU with these registers.

    What they leave open is as usual: 4-level paging, NXE and WP set.  Without CR3 the tables are
    those of the Linux whose VMCOREINFO is there.

    Raises SourceError where nothing tells CR3.
    """
    if "cr3" in registers:
        mark, said = mark_in(registers, registers, held.memory)
        return _snapshot(held, registers, (*said, *assumed), mark)
    return _of_linux(held, registers, assumed)


def _of_linux(held: Held, registers: Mapping[str, int], assumed: Sequence[str]) -> Snapshot:
    """The snapshot with the tables of the Linux that left its VMCOREINFO in the memory; of several,
    as when one was started by another, the one whose tables are still there."""
    found: dict[tuple[int, ...], Snapshot] = {}
    for text in held.texts():
        told = vmcoreinfo.registers(text, vmcoreinfo.is_x86_64(text))
        if "cr3" not in told or told["cr3"] % WORD:
            continue
        wrong: tuple[str, ...] = ()
        said: tuple[str, ...] = ()
        if vmcoreinfo.is_x86_64(text):
            mark, said, wrong = marked(text, registers)
            told |= mark
        else:
            told["efer"] = Efer.NXE
        root = f"the tables are those of Linux itself, by its VMCOREINFO (--cr3 {told['cr3']:#x})"
        try:
            one = _snapshot(held, registers, (root, *said, *assumed), told)
        except SourceError:
            continue
        if doubt(one.cpu, one.memory) is None:
            found[tuple(told.values())] = replace(one, notes=(*wrong, *one.notes))
    if len(found) == 1:
        (only,) = found.values()
        return only
    if found:
        roots = " or ".join(f"--cr3 {one.cpu.cr3:#x}" for one in found.values())
        raise SourceError(f"{held.title} has VMCOREINFO of several kernels: choose one, {roots}")
    raise SourceError(
        f"{held.title} does not record where the root table is, and has no VMCOREINFO of a Linux"
        " whose tables are there: add --cr3, or of RISC-V --satp, or of arm64 --tcr with --ttbr0 or"
        " --ttbr1, or of s390 --asce, or of POWER --ptcr or --quadrant0"
    )


def _snapshot(
    held: Held,
    registers: Mapping[str, int],
    assumed: Sequence[str],
    told: Mapping[str, int] = MappingProxyType({}),
) -> Snapshot:
    """A CPU with these registers, and the memory.

    told     what the memory says of others
    assumed  what is assumed of the memory, a sentence each
    """
    usual = {"efer": Cpu.long_mode(4, 0).efer}
    if not {**told, **registers}.get("cr4", Cr4.PAE) & Cr4.PAE:
        usual["efer"] = Efer.NXE
    memory = held.memory
    cpu = cpu_with(Cpu.long_mode(4, 0), {**usual, **told, **registers}, memory)
    notes: tuple[str, ...] = ()
    if cpu.pdptes_checked is not None:
        from harness.inspect.x86 import engine  # what is known of engines takes a while to import

        cpu, notes = engine.as_marked(cpu)
    assumed = (*_assumed(cpu, registers), *assumed)
    found = Snapshot(held.title, cpu, memory, held.backed, assumed, notes, partial=True)
    left_open = tuple(unseen_rights(cpu, registers, "a file of memory"))
    return replace(found, unsure=RESERVING - registers.keys(), left_open=left_open)


def _assumed(cpu: Cpu, registers: Mapping[str, int]) -> Iterator[str]:
    for name in ("cr0", "cr4", "efer"):
        if name not in registers:
            yield f"{name.upper()}={getattr(cpu, name):#x} (--{name})"
    if "maxphyaddr" not in registers:
        yield f"MAXPHYADDR={cpu.maxphyaddr} (--maxphyaddr)"
    yield from unseen_model(cpu, registers, "a file of memory")
