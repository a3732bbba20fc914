"""CPU state and physical memory at one moment: what every question is asked of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from harness.paging.address import Physical, Span
from harness.paging.memory import Memory


class SourceError(ValueError):
    """A source that cannot be read: a sentence that says which, where, and why."""


class QuestionError(ValueError):
    """A question that has no answer: a sentence that says what is wrong with it."""


RESERVING: Final = frozenset(("efer", "maxphyaddr"))
"""The registers that decide what is reserved in entries and that not every source records, by the
names of the CPU's fields."""


@dataclass(frozen=True)
class Given:
    """What is known of tables of which only the entries of one walk were given.

    levels    of the entries; those above the lowest that are missing lead on and withhold nothing
    unplaced  the tables of which it is not known where they are
    """

    levels: frozenset[int]
    unplaced: frozenset[Physical]


@dataclass(frozen=True)
class Snapshot:
    """A machine at one moment, or as much of it as was given.

    title    what it is, for people
    cpu      the state of the processor that is asked about: the `Cpu` of its architecture
    memory   its physical memory
    backed   where there is memory, in order; None where the source does not tell
    assumed  what the source does not tell and was taken to be so, a sentence each
    left_open  the same of what accesses alone depend on
    notes    what else there is to know of it, a sentence each: where the machine departs from the
             rules, say, and its tables are read as it does
    registers  what else the source has of the processor, among it as far as it tells them cr2, rip,
             rsp (outside long mode EIP and ESP), cpl, cs_base, ss_base, gdt, gdt_limit, idt,
             idt_limit, and tss: where GDT, IDT and TSS are
    given    where there is no more of its memory than entries: which
    rom      where stores vanish, as far as the source tells
    partial  whether the machine may have memory that is not here, since it is a file's
    doubted  whether its root may be another than was meant: `assumed` says why
    unsure   which of RESERVING the source does not record, so that they are assumed; and which of
             the registers that lead to roots, so that nothing is known of what these serve
    """

    title: str
    cpu: Any
    memory: Memory
    backed: tuple[Span, ...] | None
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    registers: Mapping[str, int] = field(default_factory=dict)
    given: Given | None = None
    rom: tuple[Span, ...] = ()
    partial: bool = False
    doubted: bool = False
    unsure: frozenset[str] = frozenset()
    left_open: tuple[str, ...] = ()

    def for_accesses(self) -> Snapshot:
        """The same to be asked about accesses, of which all that is assumed counts."""
        return replace(self, assumed=(*self.assumed, *self.left_open), left_open=())
