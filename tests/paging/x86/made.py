"""Memory made by hand, and what accesses come to in it, as short texts to compare with.

Every question is asked twice, of the scalar rules and of the arrays, which must agree in all that
an outcome holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.memory import BufferMemory, Memory
from harness.paging.x86 import bulk as arrays
from harness.paging.x86.access import Access, Allowed, Fault, Kind, Outcome, Unbacked, outcome
from harness.paging.x86.cpu import Cpu

P, RW, US, A, D, PS, G, NX = (1 << bit for bit in (0, 1, 2, 5, 6, 7, 8, 63))
ALL = P | RW | US

PAGE = 0x8000
"""Where the page of `path` lies."""


def memory(words: Mapping[int, int], width: int = 8) -> BufferMemory:
    """64 KByte from 0 on that hold the given words and are else zero."""
    made = BufferMemory(bytearray(0x10000))
    for address, word in words.items():
        made.octets[address : address + width] = np.frombuffer(
            word.to_bytes(width, "little"), np.uint8
        )
    return made


def path(cpu: Cpu, *flags: int) -> tuple[Cpu, BufferMemory]:
    """The CPU with tables through which address 0 leads to a page at PAGE, their entries holding
    the given bits besides, from the root down; fewer end at a large page at 0."""
    words, levels = {}, {"32": 2, "pae": 2, "4": 4, "5": 5}[cpu.mode.value]
    for depth, bits in enumerate(flags):
        last = depth == len(flags) - 1
        target = 0x1000 * (depth + 2) if not last else PAGE if len(flags) == levels else 0
        words[0x1000 * (depth + 1)] = target | bits
    if cpu.mode.value == "pae":
        cpu = replace(cpu, pdptes=(0x1001, 0, 0, 0))
    return replace(cpu, cr3=0x1000), memory(words, 4 if cpu.mode.value == "32" else 8)


def comes_to(cpu: Cpu, where: Memory, address: int, access: Access) -> str:
    """What an access comes to: "reaches 0x8000", "#PF(07) USER_DENIED" or "unknown"."""
    (text,) = come_to(cpu, where, [address], [access])
    return text


def come_to(
    cpu: Cpu, where: Memory, addresses: Sequence[int], accesses: Sequence[Access]
) -> list[str]:
    """What many accesses come to, under one state of the CPU."""
    answers = [
        outcome(cpu, where, Virtual(address), access)
        for address, access in zip(addresses, accesses, strict=True)
    ]
    together = arrays.outcomes(
        cpu,
        where,
        np.array(addresses, np.uint64),
        np.array([access.kind for access in accesses], np.uint8),
        np.array([access.user for access in accesses]),
        np.full(len(accesses), cpu.ac),
        np.array([access.implicit for access in accesses]),
    )
    for lane, answer in enumerate(answers):
        assert facts_of(answer) == facts_in(together, lane), (cpu, hex(addresses[lane]), answer)
    return [text(answer) for answer in answers]


def text(answer: Outcome) -> str:
    if isinstance(answer, Unbacked):
        return "unknown"
    if isinstance(answer, Fault):
        return f"#{answer.vector.name}({answer.error:02x}) {answer.reason.name}"
    return f"reaches {answer.physical:#x}"


Facts = tuple[object, ...]


def facts_of(answer: Outcome) -> Facts:
    """All that both forms of an outcome tell."""
    if isinstance(answer, Unbacked):
        return ("unknown", answer.slot.level)
    if isinstance(answer, Fault):
        level = answer.level or 0
        return (int(answer.vector), answer.error, answer.cr2, level, answer.reason)
    return ("reaches", answer.physical, answer.accessed[-1].level)


def facts_in(many: arrays.Outcomes, lane: int) -> Facts:
    """The same of one lane."""
    walks = many.walks
    level = int(walks.level[lane])
    if many.unbacked[lane]:
        assert walks.end[lane] == bulk.End.UNBACKED
        return ("unknown", level)
    reason = arrays.REASONS[int(many.reason[lane])]
    if reason is None:
        assert (many.vector[lane], many.error[lane]) == (arrays.ALLOWED, 0)
        assert not many.sets_cr2[lane]
        return ("reaches", int(walks.physical[lane]), level)
    cr2 = int(walks.address[lane]) if many.sets_cr2[lane] else None
    return (int(many.vector[lane]), int(many.error[lane]), cr2, level, reason)


READ, WRITE, FETCH = Kind.READ, Kind.WRITE, Kind.FETCH


def user(kind: Kind) -> Access:
    return Access(kind, user=True)


def supervisor(kind: Kind) -> Access:
    return Access(kind, user=False)


def implicit(kind: Kind) -> Access:
    return Access(kind, user=False, implicit=True)


def allowed(answer: Outcome) -> Allowed:
    assert isinstance(answer, Allowed)
    return answer
