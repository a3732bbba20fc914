"""The entries of one walk of x86, as a kernel or a debugger prints them, and the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from harness.inspect.names import LINUX
from harness.inspect.snapshot import RESERVING, Given, QuestionError, Snapshot
from harness.inspect.sources.entries import GivenMemory, Pairs, by_level, made_up, placed, unread
from harness.inspect.x86 import engine
from harness.inspect.x86.likely import NARROWEST
from harness.inspect.x86.processor import cpu_with, unseen_rights
from harness.paging.address import Physical, Virtual
from harness.paging.processor import root_for
from harness.paging.x86 import formats
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu, Cr4, Mode, canonical_halves

USUAL_WIDTH: Final = 40
"""MAXPHYADDR of QEMU's processors, and of small ones."""

_TWO_NAMES: Final = "with --cr4 0x1020 paging has 5 levels, and pgd and p4d are two"
_LACKING: Final = "the names that the mode lacks are those of its highest level"


def snapshot(
    title: str,
    pairs: Pairs,
    address: int,
    registers: Mapping[str, int],
    mode: Mode | None = None,
    width: int = USUAL_WIDTH,
) -> Snapshot:
    """The entries that the walk of an address reads, and a CPU with these registers.

    mode   the paging mode, where the registers do not say it; None has it found by the names and
           the address
    width  MAXPHYADDR, where the registers do not say it

    Raises QuestionError for a name that is no level's, and for entries that contradict each other;
    SourceError for a state that no machine can be in.
    """
    usual, assumed = _cpu(pairs, address, {"maxphyaddr": width, **registers}, mode)
    if "maxphyaddr" not in registers and usual.mode is not Mode.BITS_32:
        assumed.append(f"MAXPHYADDR={width}")
    empty = GivenMemory(_no_pdptes(registers.get("cr3", 0)))
    cpu = cpu_with(usual, registers, empty)
    if not cpu.long and address not in LEGACY_SPAN:
        raise QuestionError(f"outside long mode there is no address {address:#x}")
    twice = _TWO_NAMES if cpu.mode is Mode.LEVEL_4 else _LACKING
    given = by_level(cpu, pairs, twice)
    assumed += made_up(cpu, given)
    left_open = tuple(unseen_rights(cpu, registers, "what was given"))
    cpu, words, unplaced = _placed(cpu, given, Virtual(address), "cr3" in registers)
    cpu, notes = engine.as_marked(cpu)
    notes += tuple(unread(cpu, given))
    known = Given(frozenset(given), frozenset(unplaced))
    memory = GivenMemory(words)
    unsure = RESERVING - registers.keys()
    return Snapshot(
        *(title, cpu, memory, None, tuple(assumed), notes),
        given=known,
        unsure=unsure,
        left_open=left_open,
    )


def _cpu(
    pairs: Pairs, address: int, registers: Mapping[str, int], mode: Mode | None
) -> tuple[Cpu, list[str]]:
    """A CPU in the mode that the entries are of, and what is assumed of it."""
    guessed = False
    if mode is None:
        five = _five(pairs)
        guessed = five is None and "cr4" not in registers and _of_5_alone(address)
        mode = Mode.LEVEL_5 if five or guessed else Mode.LEVEL_4
        if not registers.get("cr4", Cr4.PAE) & Cr4.PAE:
            mode = Mode.BITS_32
    cpu = Cpu.in_mode(mode, 0, cr4=Cr4.PGE | (Cr4.PSE if mode is Mode.BITS_32 else Cr4(0)))
    assumed = [
        f"{name.upper()}={getattr(cpu, name):#x}"
        for name in ("cr0", "cr4", "efer")
        if name not in registers
    ]
    if guessed:
        assumed.append(f"5 levels: with 4, {address:#x} is not canonical, and its use is a #GP")
    return replace(cpu, maxphyaddr=registers["maxphyaddr"]), assumed


def _five(pairs: Pairs) -> bool | None:
    """Whether the entries are those of 5-level paging: p4d is another than pgd, or there is a
    PML5E; None where they do not tell."""
    by_name = {name.lower(): raw for name, raw in pairs}
    if "pml5e" in by_name or "pml5" in by_name:
        return True
    *_, p4d, pgd = (by_name.get(name) for name in LINUX)
    return None if pgd is None or p4d is None else pgd != p4d


def _of_5_alone(address: int) -> bool:
    """Whether an address is canonical with 5 levels and not with 4."""
    four, five = (any(address in half for half in canonical_halves(n)) for n in (4, 5))
    return five and not four


def _no_pdptes(cr3: int) -> dict[int, int]:
    """The PDPTEs to which CR3 leads, all empty."""
    first = cr3 & (1 << formats.LEGACY_ADDRESS_BITS) - formats.PDPTES * formats.PDPTE_BYTES
    return {first + number * formats.PDPTE_BYTES: 0 for number in range(formats.PDPTES)}


def _placed(
    cpu: Cpu, given: Mapping[int, int], address: Virtual, known: bool
) -> tuple[Cpu, dict[int, int], set[Physical]]:
    """The CPU, the words of memory, and the tables that are made up; `known` is whether CR3 is."""
    free, unplaced = _free(cpu, given.values()), set[Physical]()
    if not known:
        cpu = replace(cpu, cr3=next(free))
        unplaced.add(cpu.base)
    if cpu.mode is Mode.PAE:
        raw = given.get(formats.PDPTE_LEVEL)
        if raw is None:
            raw = next(free) | formats.P
            unplaced.add(cpu.pdpte.address_of(raw))
        wrong = cpu.malformed_pdpte(raw)
        pdptes = [0] * formats.PDPTES
        pdptes[address * formats.PDPTES // LEGACY_SPAN.size] = raw
        checked = cpu.pdpte.reserved_mask if wrong else None
        cpu, _ = engine.as_marked(replace(cpu, pdptes=tuple(pdptes), pdptes_checked=checked))
    root = root_for(cpu, address)
    rights = cpu.format.granting(*cpu.format.rights)
    words, made = placed(root.table if root else None, given, address, rights, free)
    return cpu, words, unplaced | made


def _free(cpu: Cpu, raws: Iterable[int]) -> Iterator[Physical]:
    """Addresses for tables that are made up: those to which no entry leads, from the end that every
    processor has, so that they stay what they are where another MAXPHYADDR is tried."""
    pointer = cpu.format.levels[-1].pointer
    assert pointer is not None
    used = {cpu.base, *(pointer.address_of(raw) for raw in raws)}
    width = NARROWEST if cpu.long else formats.LEGACY_ADDRESS_BITS
    last = min(pointer.address_of(-1), (1 << width) - (1 << formats.PAGE_BITS))
    for address in range(last, 0, -(1 << formats.PAGE_BITS)):
        if address not in used:
            yield Physical(address)
