"""What the processor itself needs of a space: its code and stack, GDT, IDT, TSS, and their stacks.

An exception is delivered through them: the processor reads a gate, a descriptor and the TSS, and
pushes to a stack (SDM volume 3A, 6.10 to 6.14). Where one of these is not mapped as that needs it,
a fault becomes a double fault, and then a reset. Where a program of the user runs, nothing is said
of its own code and stack: a system may map those when they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

from harness.inspect.lint import Need
from harness.inspect.snapshot import Snapshot
from harness.paging.address import Physical, Span, Virtual
from harness.paging.processor import root_for
from harness.paging.table import Slot
from harness.paging.walk import walk
from harness.paging.x86.access import Access, Allowed, Kind, Unbacked, outcome
from harness.paging.x86.cpu import LEGACY_SPAN

CODE, STACK, GDT, GDT_READ_ONLY, IDT, HANDLER, TSS = (
    "code-unreachable",
    "stack-unreachable",
    "gdt-unreachable",
    "gdt-read-only",
    "idt-unreachable",
    "handler-unreachable",
    "tss-unreachable",
)
"""The rules, by name; `lint` has their sentences."""

READ: Final = Access(Kind.READ, user=False, implicit=True)
WRITE: Final = Access(Kind.WRITE, user=False, implicit=True)
PUSH: Final = Access(Kind.PUSH, user=False)
FETCH: Final = Access(Kind.FETCH, user=False)

RESET: Final = (0, 0xFFFF), (0, 0x3FF)
"""Base and limit of the IDT after a reset, and as firmware has it in real mode: none was loaded."""

USER: Final = 3
_TSS_BYTES: Final = 0x68
_LIMIT: Final = 0xFFFF


@dataclass(frozen=True)
class _Gate:
    """An entry of the IDT that is present: where it leads, and which stack of the TSS it takes."""

    vector: int
    target: int
    ist: int


def broken(snapshot: Snapshot) -> Iterator[Need]:
    """What is amiss, as far as the snapshot has the registers that tell where it would be."""
    registers = snapshot.registers
    supervisor = registers.get("cpl", USER) != USER
    if supervisor and "rip" in registers:
        yield from _one(snapshot, CODE, "RIP", _linear(snapshot, "cs_base", "rip"), 1, FETCH)
    if supervisor and "rsp" in registers:
        yield from _stack(snapshot, "RSP", _top(snapshot))
    if "gdt" in registers and "gdt_limit" in registers:
        yield from _gdt(snapshot, registers["gdt"], registers["gdt_limit"] & _LIMIT)
    gates: list[_Gate] = []
    idt = registers.get("idt"), registers.get("idt_limit")
    if None not in idt and idt not in RESET:
        yield from _idt(snapshot, idt[0] or 0, (idt[1] or 0) & _LIMIT, gates)
        yield from _handlers(snapshot, gates)
    if "tss" in registers:
        yield from _tss(snapshot, registers["tss"], {gate.ist for gate in gates} - {0})


def _linear(snapshot: Snapshot, base: str, name: str) -> int:
    wide = (1 << 64) - 1 if snapshot.cpu.long else LEGACY_SPAN.last
    return snapshot.registers.get(base, 0) + snapshot.registers[name] & wide


def _top(snapshot: Snapshot) -> int:
    """Where the stack in use ends: handlers of long mode are 64-bit code, for which the base of SS
    counts as 0 (SDM volume 3A, 3.4.4 and 6.14.1)."""
    if snapshot.cpu.long:
        return snapshot.registers["rsp"]
    return _linear(snapshot, "ss_base", "rsp")


def _stack(snapshot: Snapshot, name: str, top: int, switched: bool = False) -> Iterator[Need]:
    """What the processor pushes with an error code: in long mode always SS and RSP, too, from a
    multiple of 16 on; else only where the stack was switched (SDM volume 3A, 6.12.1 and 6.14.2)."""
    long = snapshot.cpu.long
    size, wide = (48, 1 << 64) if long else (24 if switched else 16, 1 << 32)
    top = top & ~15 if long else top
    yield from _one(snapshot, STACK, f"{name} {top:#x}", (top - size) % wide, size, PUSH)


def _gdt(snapshot: Snapshot, base: int, limit: int) -> Iterator[Need]:
    yield from _one(snapshot, GDT, "GDT", base, limit + 1, READ)
    stuck = []
    for place in range(base, base + limit + 1 - 7, 8):
        raw = _word(snapshot, place)
        # Of code and data that is present (SDM volume 3A, figure 3-8) the processor sets A.
        waits = raw is not None and raw >> 44 & 1 and raw >> 47 & 1 and not raw >> 40 & 1
        if waits and (why := _why(snapshot, place + 5, WRITE)):
            stuck.append((place, why))
    for why, places in groupby(stuck, itemgetter(1)):
        each = [place for place, _ in places]
        names = ", ".join(f"{place - base:#x}" for place in each[:_NAMED])
        more = " and more" if len(each) > _NAMED else ""
        where = Span(each[0], each[-1] + 7)
        detail = f"selectors {names}{more}: {why}"
        yield Need(GDT_READ_ONLY, where, _slot(snapshot, each[0]), len(each), detail)


_NAMED: Final = 4


def _idt(snapshot: Snapshot, base: int, limit: int, gates: list[_Gate]) -> Iterator[Need]:
    """Gates that cannot be read; those that can, and are present, go to `gates`."""
    long = snapshot.cpu.long
    size = 16 if long else 8
    unread = []
    for vector in range(min((limit + 1) // size, 256)):
        place = base + vector * size
        why = _why(snapshot, place, READ) or _why(snapshot, place + size - 1, READ)
        if why:
            unread.append((vector, place, why))
        elif gate := _gate(snapshot, vector, place):
            gates.append(gate)
    for run in _runs(snapshot, unread):
        where = Span(run[0][1], run[-1][1] + size - 1)
        slot = _slot(snapshot, run[0][1])
        yield Need(IDT, where, slot, len(run), f"{_vectors(run)}: {run[0][2]}")


def _gate(snapshot: Snapshot, vector: int, place: int) -> _Gate | None:
    """An interrupt or trap gate of 32 or 64 bits that is present (SDM volume 3A, figures 6-2 and
    6-8)."""
    raw = _word(snapshot, place)
    if raw is None or not raw >> 47 & 1 or raw >> 40 & 0x1F not in (0xE, 0xF):
        return None
    target = raw & 0xFFFF | raw >> 32 & 0xFFFF_0000
    if not snapshot.cpu.long:
        return _Gate(vector, target, 0)
    high = _word(snapshot, place + 8)
    if high is None:
        return None
    return _Gate(vector, target | (high & 0xFFFF_FFFF) << 32, raw >> 32 & 7)


def _handlers(snapshot: Snapshot, gates: Iterable[_Gate]) -> Iterator[Need]:
    lost = [
        (gate.vector, gate.target, why)
        for gate in gates
        if (why := _why(snapshot, gate.target, FETCH))
    ]
    for run in _runs(snapshot, lost):
        targets = [target for _, target, _ in run]
        where = Span(min(targets), max(targets))
        slot = _slot(snapshot, targets[0])
        yield Need(HANDLER, where, slot, len(run), f"{_vectors(run)}: {run[0][2]}")


def _tss(snapshot: Snapshot, base: int, used: set[int]) -> Iterator[Need]:
    """The TSS, and the stacks that it names: RSP0 where it is set, those of IST that are set or
    that a gate takes."""
    amiss = list(_one(snapshot, TSS, "TSS", base, _TSS_BYTES, READ))
    yield from amiss
    if amiss:
        return
    if not snapshot.cpu.long:
        if esp := (_word(snapshot, base + 4) or 0) & LEGACY_SPAN.last:
            yield from _stack(snapshot, "ESP0", esp, switched=True)
        return
    if rsp := _word(snapshot, base + 4):
        yield from _stack(snapshot, "RSP0", rsp)
    for number in range(1, 8):
        top = _word(snapshot, base + 36 + 8 * (number - 1)) or 0
        if top or number in used:
            yield from _stack(snapshot, f"IST{number}", top)


def _runs(
    snapshot: Snapshot, rows: list[tuple[int, int, str]]
) -> Iterator[list[tuple[int, int, str]]]:
    """Neighbours by their numbers that are on one page and have the same reason."""
    page = snapshot.cpu.format.levels[0].size

    def alike(each: tuple[int, tuple[int, int, str]]) -> tuple[int, int, str]:
        place, (number, address, why) = each
        return number - place, address // page, why

    for _, run in groupby(enumerate(rows), alike):
        yield [row for _, row in run]


def _vectors(run: list[tuple[int, int, str]]) -> str:
    first, last = run[0][0], run[-1][0]
    return f"vector {first}" if first == last else f"vectors {first} to {last}"


def _one(
    snapshot: Snapshot, rule: str, name: str, first: int, size: int, access: Access
) -> Iterator[Need]:
    """What of some bytes cannot be accessed: the first of them, and all to the end of its page, as
    one."""
    page = snapshot.cpu.format.levels[0].size
    wide = 1 << 64 if snapshot.cpu.long else 1 << 32
    place, past = first, min(first + size, wide)
    while place < past:
        stop = min(past, (place // page + 1) * page)
        if why := _why(snapshot, place, access):
            yield Need(rule, Span(place, stop - 1), _slot(snapshot, place), 1, f"{name}: {why}")
        place = stop


def _why(snapshot: Snapshot, place: int, access: Access) -> str:
    """Why an access faults; empty where it does not."""
    if not snapshot.cpu.long and place not in LEGACY_SPAN:
        return "it lies beyond 4 GiB"
    if place >> 64:
        return "it lies beyond the last address"
    answer = outcome(snapshot.cpu, snapshot.memory, Virtual(place), access)
    if isinstance(answer, Allowed):
        return ""
    if isinstance(answer, Unbacked):
        return "a table on the way lies outside memory"
    return answer.reason.value


def _slot(snapshot: Snapshot, place: int) -> Slot | None:
    """Where the walk of an address ends."""
    root = root_for(snapshot.cpu, Virtual(place))
    if root is None:
        return None
    found = walk(snapshot.memory, root, Virtual(place))
    return found.unbacked or found.steps[-1].slot


def _word(snapshot: Snapshot, place: int) -> int | None:
    """The 8 bytes at an address that is a multiple of 4; None where some are not mapped."""
    halves = []
    for at in (place, place + 4):
        root = root_for(snapshot.cpu, Virtual(at)) if at % 4 == 0 else None
        physical = walk(snapshot.memory, root, Virtual(at)).physical if root else None
        word = None if physical is None else snapshot.memory.load(Physical(physical), 4)
        if word is None:
            return None
        halves.append(word)
    return halves[0] | halves[1] << 32
