"""What questions about tables ask of an architecture: data, and functions of its CPU states.

An architecture is a folder here, whose module `asked` has its `Architecture` as ASKED.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from harness.architectures import NAMES, has, module_of
from harness.inspect.snapshot import QuestionError, Snapshot, SourceError
from harness.paging.address import Span, Virtual
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.entry import Entry
from harness.paging.format import Level
from harness.paging.memory import Mask, Memory, Order, Words, WritableMemory
from harness.paging.processor import Cpu

if TYPE_CHECKING:
    from harness.check.held import HeldMemory
    from harness.check.layouts import Layout
    from harness.inspect.decode import LinuxReading, Reading, Register
    from harness.inspect.remedy import Remedy
    from harness.inspect.sources.core import Dump
    from harness.inspect.sources.ram import Held
    from harness.inspect.translation import Index, Translation
    from harness.machine.foreign import ForeignMonitor
    from harness.machine.gdbstub import StubMonitor

    Monitor = ForeignMonitor | StubMonitor

K = TypeVar("K", bound=Enum)

State = Any
"""The CPU state of the architecture."""

Types = tuple[str, ...]
"""The names of memory types, by the index with which an entry selects one."""


class MemoryTypes(Protocol):
    """The memory types that entries select; a module can be this.

    NAMES     what types can be called
    AT_RESET  their names, if nothing else is given
    ASSUMED   what is assumed where the register that has them is not given, a sentence; empty
              where there is no such register
    BITS      the names of the bits of entries that select one
    DEVICE    those of which a device's pages have one set
    UNCACHED  the types of memory that is not cached
    """

    @property
    def AT_RESET(self) -> Types: ...  # noqa: N802
    @property
    def ASSUMED(self) -> str: ...  # noqa: N802
    @property
    def DEVICE(self) -> tuple[str, ...]: ...  # noqa: N802
    @property
    def UNCACHED(self) -> tuple[str, ...]: ...  # noqa: N802
    @property
    def BITS(self) -> tuple[str, ...]: ...  # noqa: N802

    @property
    def NAMES(self) -> Types: ...  # noqa: N802

    def types(self, register: int | None, cpu: Any, /) -> Types:
        """Their names by the value of the register that has them, where that is no part of the CPU
        state; QuestionError where it is no value of it, or there is no such register."""

    def index_of(self, bits: Mapping[str, int], raw: int, /) -> int:
        """Which of them an entry selects; `bits` are the masks of its bits, by their names."""

    def index(self, level: Level, raw: Words, /) -> Bytes:
        """The same of each leaf at a level."""

    def selecting(self, bits: Mapping[str, int], index: int, /) -> int:
        """The bits of an entry that select one; ValueError where it has none for that."""


@dataclass(frozen=True)
class Seen:
    """A processor of a running QEMU or a core: what a `Snapshot` has of it, by the same names."""

    cpu: State
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    registers: Mapping[str, int] = field(default_factory=dict)
    unsure: frozenset[str] = frozenset()
    left_open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mixed:
    """How one tree is read that leads to tables of several formats, which entries tell apart.

    part   the state whose format is that of the path of an address in a memory
    parts  states that together read all that is there, one for each format: nearly always one
    every  the same, for every format that can be there
    """

    part: Callable[[State, Memory, int], State]
    parts: Callable[[State, Memory], Sequence[State]]
    every: Callable[[State], Sequence[State]]


@dataclass(frozen=True)
class Architecture:
    """What is asked of an architecture; what is left out is as in most.

    name           that of its folders
    called         what it is called, for people
    manual         the manual whose sections are named
    registers      the fields of its CPU state, which can be given in place of a source's own
    targets        what QEMU calls its processors (query-cpus-fast)
    roots          the registers that say where tables are, and how their entries read, in lower
                   case: of memory in files that one of them is given tells whose it is
    read_root      a value of one of them, bit by bit, as a CPU state reads it
    parts          CPU states that together translate what one does, each with tables of one format,
                   in order of addresses: nearly always that one alone
    part           the one of them that translates an address
    in_mode        a CPU state of which the mode is known, and what else is given by the names of
                   the options of `pagetable decode`, of which it takes `mode_options`;
                   QuestionError where there is no such state
    told_mode      the mode that a value of its root register says; None where it says none
    assumed        what is assumed of one where entries are read, a sentence each
    levels_of      the levels at which an entry can be read, from 0 up
    read           what a raw entry says at one of them, bit by bit
    check_address  raises QuestionError for an address that the mode does not have
    pointed        the address that a data access through a pointer uses
    masking        what makes it another, for people
    canonical      whether an address is translated at all, and the bits that decide
    above          a register that serves an address before there is a table: which bits of the
                   address choose it, and what it holds
    reason         why every access to an address faults, by the address and the end of its walk;
                   None where that depends on the access or is not known
    likely         what an entry probably is that makes no sense, a phrase each: by the CPU state
                   and what it says; and by what Linux reads, its slot, memory, an address that it
                   serves and where memory is, as far as these are known
    allowed        what an access comes to that passes
    accesses       the accesses named by what they do, by whom, and whether to a system structure;
                   QuestionError where there is no such access
    outcome        what an access to an address comes to
    unknown        whether that is not known, for want of memory
    elsewhere      what such memory reads as: the byte throughout, its name, and on which machines
    others         the processors that read the entries of a walk in another way, where what decides
                   it is assumed: what was, and what it is there
    alike          whether an access ends in the same way there
    pointer        what an address probably is that was never meant as one, a phrase, if anything
    rootless       the register that leads to the root of an address, by the rule that there is
                   none; None for another rule
    withheld       the right that entries withhold, by the access and its fault; None where it is
                   none alone
    of_address     whether a fault is about the address alone, whatever entries say
    using          the CPU state in which the address of an access is translated
    remedies       what would let an access pass, the likeliest to be meant first
    linux          the same entry as Linux reads it; QuestionError where that is not known
    doubt          why the root may be another than was meant; None where it leads somewhere
    never_withheld the rights that the supervisor has whatever entries say
    ineffective_with
                   the rights that have no effect beside others, as bits of the format: which must
                   be given together, which have no effect then, and why, a clause
    ineffective_in the rights that have no effect in raw entries, if these are pages, for what else
                   they say; and why
    levels         how many levels tables can have
    smallest_page  the bytes of the smallest page of any format
    addresses      the addresses that there are, whether or not a root serves them
    denied         the rule by which an access to a page is denied that grants these rights; and
                   where its address is given, that by which the address is kept from it
    judged         of the walks of pages and of what else accesses end at: which let an access pass,
                   of which that is not known, and a number for the rule
    bars           what of the CPU state keeps the supervisor from a page of the user's, by the
                   reason of the fault
    marks          the bits that a page with these rights must have set for the processor to use
                   it, besides those that give them
    memory_types   the memory types that entries select
    in_tables      the state in which every entry is read from memory at each walk, where some are
                   held in registers
    build          builds the tables of a layout in memory, for a CPU with the registers given
    left_open      what no layout says of that CPU and accesses depend on, as it is assumed where it
                   is not given, a sentence each
    byte_order     in which the bytes of its words lie in memory
    mixed          how one tree is read whose tables have several formats; None where there is none
    mode_options   what `in_mode` can be given
    """

    name: str
    called: str
    manual: str
    registers: frozenset[str]
    targets: frozenset[str]
    roots: tuple[str, ...]
    read_root: Callable[[State, str, int], Register]
    in_mode: Callable[[str, Mapping[str, Any]], State]
    assumed: Callable[[State, Mapping[str, Any], Iterable[Entry]], Iterable[str]]
    read: Callable[[State, int, int], Reading]
    check_address: Callable[[State, Virtual], None]
    canonical: Callable[[State, int], tuple[bool, str]]
    reason: Callable[[State, Virtual, End], Enum | None]
    likely: Callable[..., tuple[str, ...]]
    allowed: type[Any]
    accesses: Callable[[str | None, bool | None, bool], Sequence[Any]]
    outcome: Callable[[State, Memory, Virtual, Any], Any]
    pointer: Callable[[State, Virtual], str | None]
    withheld: Callable[[Any, Any], str | None]
    of_address: Callable[[Any], bool]
    remedies: Callable[[State, Memory, Virtual, Any], Sequence[Remedy]]
    linux: Callable[[State, Reading], LinuxReading]
    doubt: Callable[[State, Memory], str | None]
    levels: frozenset[int]
    smallest_page: int
    denied: Callable[[State, Any, int, Virtual | None], Enum | None]
    judged: Callable[[State, Walks, Any], tuple[Mask, Mask, Bytes]]
    bars: Mapping[Enum, str]
    marks: Callable[[State, Collection[str]], int]
    memory_types: MemoryTypes
    build: Callable[[Layout, int, WritableMemory, Mapping[str, int]], State]
    parts: Callable[[State], Sequence[State]] = lambda cpu: (cpu,)
    part: Callable[[State, int], State] = lambda cpu, _: cpu
    levels_of: Callable[[State], range] = lambda cpu: range(cpu.levels)
    pointed: Callable[[State, Virtual], Virtual] = lambda _, address: address
    masking: str = ""
    above: Callable[[State, int], tuple[Index, int] | None] = lambda _, __: None
    unknown: Callable[[Any], bool] = lambda _: False
    rootless: Callable[[Virtual, Any], str | None] = lambda _, __: None
    elsewhere: tuple[tuple[int, str, str], ...] = ()
    others: Callable[[Snapshot, Translation], Iterable[tuple[str, str, State]]] = lambda _, __: ()
    alike: Callable[[Any, Any], bool] = lambda one, other: bool(one == other)
    using: Callable[[State, Any], State] = lambda cpu, _: cpu
    never_withheld: Callable[[State], int] = lambda _: 0
    ineffective_with: Callable[[State], Sequence[tuple[int, int, str]]] = lambda _: ()
    ineffective_in: tuple[Callable[[Words], Words], str] = (np.zeros_like, "")
    addresses: Callable[[State], Sequence[Span]] = lambda cpu: [root.span for root in cpu.roots]
    in_tables: Callable[[State], State] = lambda cpu: cpu
    left_open: Callable[[State, Mapping[str, int]], Iterable[str]] = lambda _, __: ()
    byte_order: Order = "little"
    mode_options: frozenset[str] = frozenset()
    told_mode: Callable[[int], str | None] = lambda _: None
    mixed: Mixed | None = None

    # What few questions need is imported where it is asked for.

    def seen(self, monitor: Monitor, given: Mapping[str, int], memory: HeldMemory) -> Seen:
        """The processor that a monitor is asked about, with the registers given; all tables that
        its root leads to are held in memory."""
        found: Seen = module_of(self.name, "inspect", "live").seen(monitor, given, memory)
        return found

    def hold_beside(self, snapshot: Snapshot, memory: HeldMemory, stack: bool) -> None:
        """Holds what else in memory questions about a snapshot look at; with `stack`, those about
        its last fault."""
        module_of(self.name, "inspect", "live").hold_beside(snapshot, memory, stack)

    def of_core(self, dump: Dump, vcpu: int, given: Mapping[str, int]) -> Seen:
        """A processor of a core, with the registers given."""
        found: Seen = module_of(self.name, "inspect", "core").seen(dump, vcpu, given)
        return found

    def of_memory(self, held: Held, given: Mapping[str, int], doubts: Sequence[str]) -> Snapshot:
        """A snapshot of files of memory, with the registers given; and what is assumed of the
        files, a sentence each."""
        files = module_of(self.name, "inspect", "files")
        found: Snapshot = files.snapshot(held, given, doubts)
        return found


class OtherArchitectureError(SourceError):
    """A register that the architecture of a source does not have; `whose` says which that is."""

    def __init__(self, text: str, whose: str) -> None:
        super().__init__(text)
        self.whose = whose


def of(cpu: Cpu) -> Architecture:
    """The architecture of a CPU state."""
    return named(cpu.architecture)


def parts(snapshot: Snapshot) -> tuple[Snapshot, ...]:
    """The snapshot, taken apart where its tables have several formats: one for each."""
    asked, cpu = of(snapshot.cpu), snapshot.cpu
    found = asked.mixed.parts(cpu, snapshot.memory) if asked.mixed else asked.parts(cpu)
    return tuple(replace(snapshot, cpu=one) for one in found)


def apart(snapshot: Snapshot) -> tuple[Snapshot, ...]:
    """The same, one for every format that its tables can have."""
    mixed = of(snapshot.cpu).mixed
    if mixed is None:
        return parts(snapshot)
    return tuple(replace(snapshot, cpu=cpu) for cpu in mixed.every(snapshot.cpu))


@cache
def named(name: str) -> Architecture:
    """The architecture of that name, which is imported when it is asked for first; SourceError for
    one about whose tables nothing can be asked."""
    if not has(name, "inspect", "asked"):
        raise SourceError(f"tables of {name} are read by the library, validate and matrix alone")
    found: Architecture = module_of(name, "inspect", "asked").ASKED
    return found


def of_target(target: str, title: str) -> Architecture:
    """The architecture of what QEMU calls a processor; SourceError where that is not known."""
    for name in NAMES:
        if has(name, "inspect", "asked") and target in named(name).targets:
            return named(name)
    raise SourceError(f"{title} is of {target}, whose tables are not known here")


def byte_order_of(target: str) -> Order:
    """The byte order of what QEMU calls a processor, whether or not its tables are known."""
    try:
        return of_target(target, "").byte_order
    except SourceError:
        return "little"


def in_mode(asked: Architecture, mode: str, given: Mapping[str, Any]) -> State:
    """A CPU state of which the mode is known, and what else is given by the names of the options of
    `pagetable decode`.  Raises QuestionError for one that means nothing there."""
    if others := [name for name in given if name not in asked.mode_options]:
        named, means = options(others, given), "mean" if len(others) > 1 else "means"
        raise QuestionError(f"{mode} is a mode of {asked.called}, where {named} {means} nothing")
    return asked.in_mode(mode, given)


def options(names: Iterable[str], given: Mapping[str, Any]) -> str:
    """The options of these names, as they are written for the values that were given."""
    return " and ".join(
        f"--{'no-' if given.get(name) is False else ''}{name.replace('_', '-')}" for name in names
    )


def refuse_others(asked: Architecture, given: Mapping[str, Any], title: str) -> None:
    """Raises SourceError for a register that was given and that the architecture does not have."""
    if others := sorted(given.keys() - asked.registers):
        named, means = options(others, given), "mean" if len(others) > 1 else "means"
        raise OtherArchitectureError(
            f"{title} is of {asked.called}, where {named} {means} nothing",
            f"{title} is of {asked.called}",
        )


def of_root(registers: Iterable[str]) -> str | None:
    """The name of the architecture of which a register that says where tables are is among these;
    None where none is."""
    given = set(registers)
    there = (name for name in NAMES if has(name, "inspect", "asked"))
    return next((name for name in there if given & set(named(name).roots)), None)


def never_withheld(cpu: Cpu) -> int:
    """The rights that the supervisor has whatever entries say, as bits of the format."""
    return of(cpu).never_withheld(cpu)


def not_given(snapshot: Snapshot) -> tuple[str, ...]:
    """The registers that lead to roots and were not given, so that nothing is known of what these
    serve."""
    return tuple(name for name in of(snapshot.cpu).roots if name in snapshot.unsure)


def effective(cpu: Cpu, granted: Words, raw: Words) -> Words:
    """The effective rights of pages, as bits of the format, shape (n,): those that all entries
    grant together, but for what other rights and other bits of the page's entry leave without
    effect.

    raw  the entries of the pages; of what is none, 0

    Accesses can come to something else by what is not applied here: accessed and dirty bits,
    protection keys, SMAP, LASS, PAN, E0PD and MXR.
    """
    return effective_together(cpu, effective_in(cpu, granted, raw))


def effective_in(cpu: Cpu, granted: Words, raw: Words) -> Words:
    """The rights that have an effect for all that the page's entry says: the first step."""
    ineffective, _ = of(cpu).ineffective_in
    return granted & ~ineffective(raw)


def effective_together(cpu: Cpu, granted: Words) -> Words:
    """Those of them that have an effect beside each other: the second step."""
    found = granted
    # What has no effect by one rule still counts where another asks for it.
    for together, ineffective, _ in of(cpu).ineffective_with(cpu):
        both = granted & np.uint64(together) == np.uint64(together)
        found = np.where(both, found & ~np.uint64(ineffective), found)
    return found


@lru_cache(maxsize=1 << 12)  # a dump asks of the same few for each of its ranges
def effective_of(cpu: Cpu, granted: int, raw: int) -> int:
    """The effective rights of one page."""
    kept = np.array([effective_in_of(cpu, granted, raw)], np.uint64)
    return int(effective_together(cpu, kept)[0])


def effective_in_of(cpu: Cpu, granted: int, raw: int) -> int:
    """`effective_in` of one page."""
    words = [np.array([word], np.uint64) for word in (granted, raw)]
    return int(effective_in(cpu, *words)[0])


def why_ineffective(cpu: Cpu, granted: int, raw: int) -> str:
    """Why some of the rights that entries grant have no effect; empty where all have."""
    asked = of(cpu)
    kept = effective_in_of(cpu, granted, raw)
    said = [asked.ineffective_in[1]] if kept != granted else []
    said += (
        why
        for together, ineffective, why in asked.ineffective_with(cpu)
        if kept & together == together and kept & ineffective
    )
    return "; ".join(dict.fromkeys(said))


def ways(
    called: str, kinds: type[K], kind: str | None, user: bool | None, implicit: bool
) -> list[tuple[K, bool]]:
    """What accesses do, by name or else READ, WRITE and FETCH, each with whether the user makes
    them, or else both.  Raises QuestionError for a name that is none of `kinds`, and for an access
    to a system structure: only x86 has these."""
    if implicit:
        raise QuestionError(f"no access of {called} is implicit")
    named = ("READ", "WRITE", "FETCH") if kind is None else (kind.upper(),)
    if kind is not None and named[0] not in kinds.__members__:
        raise QuestionError(f"{called} has no access of the kind {kind}")
    return [
        (kinds[one], by) for one in named for by in ((True, False) if user is None else (user,))
    ]


def signed(address: int, width: int) -> tuple[bool, str]:
    """Whether an address of 64 bits is one of `width` bits with the highest one copied above it,
    and what its upper bits are."""
    top = width - 1
    upper = address >> top
    ones = (1 << 64 - top) - 1
    where = f"bits 63:{top}"
    if upper in (0, ones):
        return True, f"{where} are all {int(bool(upper))}"
    clear = next(bit for bit in reversed(range(top, 64)) if not address >> bit & 1)
    set_ = next(bit for bit in reversed(range(top, 64)) if address >> bit & 1)
    return False, f"{where} are not all the same: bit {clear} is 0, bit {set_} is 1"
