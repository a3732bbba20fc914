"""A chain of tables, one a level, through which any path can be led by patching its entries.

The guest writes the entries of each case before its access, so one chain serves millions of
cases.  Every size of page has a frame of its own for data and one for code, so that a page
taken for one of another size is seen, and so is a page taken for a table.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from harness.check.marks import WORD, mark
from harness.check.x86 import marks
from harness.check.x86.cases import Cases
from harness.check.x86.entries import PathEntries
from harness.check.x86.marks import INVALID_OPCODE, code_of
from harness.check.x86.matrix.stage import SMALL_RAM
from harness.check.x86.verdicts import Seen
from harness.check.x86.window import Window, new_root, open_window, with_pdptes
from harness.machine.x86.guest import Guest, State
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.bulk import Bytes, End
from harness.paging.memory import BufferMemory, Mask, Words
from harness.paging.processor import root_for
from harness.paging.space import TableAllocator
from harness.paging.table import Table
from harness.paging.x86 import bulk as x86
from harness.paging.x86.access import Fault, Kind, Reason
from harness.paging.x86.bulk import REASONS
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu, Mode
from harness.paging.x86.formats import PDPTE_BYTES, PDPTES, A, P
from harness.paging.x86.load import load, move

CHANGES = ("cr0", "cr3", "cr4")
INVPCID = ("invpcid-address", "invpcid-context", "invpcid-rest", "invpcid-all")
FLUSHES = ("page", "all", "global", "none", *INVPCID, *CHANGES)
"""How the translations of an address are dropped: by INVLPG, MOV CR3, or a change of CR4.PGE; not
at all; by INVPCID of each type, the last of which drops global ones too; or by INVLPG, after which
bits of a control register are changed, and back."""

NO_VECTOR = 0xFF
"""How the guest says that an access ended without an exception."""


@dataclass(frozen=True)
class Lanes:
    """Accesses with the entries of their paths, one a lane; arrays of shape (n,).

    words     the entry at each level, shape (levels, n)
    kind      uint8, a `Kind`
    user      from user mode, or by the supervisor's WRUSS, which counts as the user's
    wruss     by that
    branch    by RET, where it reads a shadow stack, or by CALL, where it writes to one
    implicit  of a descriptor: a supervisor's access, whoever is the cause
    ac        with EFLAGS.AC set
    width     uint8, the bytes accessed
    page      uint8, the level whose frame the entries lead to
    backed    whether that frame has memory behind it
    flush     uint8, the number of one of `FLUSHES`
    changed   the bits that are changed, where that is one of `CHANGES`
    pdpte     a PDPTE that is loaded before the access, and the number of its register in
    register  uint8; shape (1, n), or (0, n) where those stay that let every access through
    """

    words: Words
    address: Words
    kind: Bytes
    user: Mask
    wruss: Mask
    branch: Mask
    implicit: Mask
    ac: Mask
    width: Bytes
    page: Bytes
    backed: Mask
    flush: Bytes
    changed: Words
    pdpte: Words
    register: Bytes

    def __len__(self) -> int:
        return len(self.address)

    def take(self, chosen: Mask | slice | npt.NDArray[np.int64]) -> Lanes:
        """The chosen lanes."""
        fields = {name: getattr(self, name)[..., chosen] for name in self.__dataclass_fields__}
        return Lanes(**fields)

    @property
    def cases(self) -> Cases:
        """What the processor is asked to do."""
        return Cases(self.address, self.kind, self.user, self.ac, self.implicit)


@dataclass(frozen=True)
class Chain:
    """The tables and frames of a chain in a guest's memory, by level, and the window beside it.

    cpu    with the chain's root, and no more control state than its mode needs
    mixed  frames of data and code both.  A small one is a frame of its own: whatever TCG translated
           in a page costs time at every write to it
    """

    memory: BufferMemory
    cpu: Cpu
    tables: tuple[Table, ...]
    data: Words
    code: Words
    mixed: Words
    window: Window

    def state(self, cpu: Cpu, then: Cpu | None = None) -> State:
        """What the guest has to load to run in the chain under the control state of `cpu`, and
        that of `then`, which jobs change to."""
        return replace(
            self.window.state,
            cr0=cpu.cr0,
            cr3=cpu.cr3,
            cr4=cpu.cr4,
            efer=cpu.efer,
            pkru=cpu.pkru,
            pkrs=cpu.pkrs,
            then=None if then is None else self.state(then),
        )

    @property
    def sizes(self) -> Words:
        """The sizes of the pages whose frames it has, by level."""
        levels = self.cpu.format.levels[: len(self.data)]
        return np.array([level.size for level in levels], np.uint64)

    def put_code(self, addresses: Words, single: Mask) -> None:
        """Puts what a fetch of each address executes into the frames of each size of page.

        single  whether it is one byte, since the page ends there
        """
        put = marks.put_code if self.cpu.long else marks.put_short_code
        frames = np.concatenate([self.code, self.mixed[:1]])
        sizes = np.concatenate([self.sizes, self.sizes[:1]])
        for frame, size in zip(frames, sizes, strict=True):
            physical = frame | addresses & (size - np.uint64(1))
            put(self.memory, physical[~single])
            self.memory.octets[physical[single].astype(np.int64)] = code_of(self.cpu).last


def build(
    guest: Guest, cpu: Cpu, outside: Collection[Span], frames: Span, allocator: TableAllocator
) -> Chain:
    """Makes a chain in the guest's memory, in the format of `cpu`.

    outside    what no case may use, whole entries of the top table or of the PDPTEs: the window
               will be there, in each half of the addresses where `cpu` has LASS
    frames     the memory for what pages lead to
    allocator  of tables

    Raises SpaceError where there is no room.
    """
    memory = BufferMemory(guest.ram.buffer)
    format, top = cpu.format, cpu.levels - 1
    tables = tuple(allocator.allocate(format, level) for level in range(cpu.levels))
    cpu = new_root(memory, cpu, allocator)
    below = format.pointer(tables[top - 1].address, top, format.granting(*format.rights))
    if cpu.mode is Mode.PAE:
        ours = [
            raw if _meets(outside, root.span) else tables[top].address | P
            for raw, root in zip(cpu.pdptes, cpu.roots, strict=True)
        ]
        cpu = with_pdptes(memory, cpu, ours)
    else:
        tables = (*tables[:top], cpu.roots[0].table)
    led = [
        slot.address
        for root in cpu.roots
        if root.table == tables[top]
        for first, slot in root.slots()
        if not _meets(outside, Span.of(first, slot.size))
    ]
    words = np.full(len(led), below, np.uint64)
    memory.scatter(np.array(led, np.uint64), format.entry_bytes, words)
    data, code, mixed = _frames(cpu, frames)
    window = open_window(
        memory, cpu, guest.image, allocator, in_small_pages=guest.ram.size <= SMALL_RAM
    )
    return Chain(memory, cpu, tables, data, code, mixed, window)


def _meets(some: Collection[Span], span: Span) -> bool:
    return any(one.clip(span) for one in some)


def _frames(cpu: Cpu, memory: Span) -> tuple[Words, Words, Words]:
    """A frame of data, one of code and one of both for each level that may hold pages, from 0 up;
    the last is that of code but at level 0."""
    data: list[int] = []
    code: list[int] = []
    free = memory.first
    for level in cpu.format.levels:
        free, count = -(-free // level.size) * level.size, 2 if data else 3
        if free + count * level.size - 1 > memory.last:
            break
        data.append(free)
        code.append(free + level.size)
        free += count * level.size
    mixed = [code[0] + cpu.format.levels[0].size, *code[1:]]
    return np.array(data, np.uint64), np.array(code, np.uint64), np.array(mixed, np.uint64)


@dataclass(frozen=True)
class Question:
    """Lanes as the guest is asked about them, whatever the control state.

    jobs    what it executes.  Its words are the entries from the root down, those of the data
            (that which an access reaches, or one that must stay as it is), and a PDPTE that is
            loaded.  Where there is one, a last job loads what lets every access through
    placed  the eight bytes of data before the access
    """

    lanes: Lanes
    jobs: npt.NDArray[np.void]
    placed: Words

    def __len__(self) -> int:
        return len(self.lanes)

    def take(self, chosen: Mask) -> Question:
        """The chosen lanes, to judge what came of them."""
        jobs = self.jobs[: len(self)][chosen]
        return Question(self.lanes.take(chosen), jobs, self.placed[chosen])

    @property
    def by_control(self) -> bool:
        """Whether the control state decides what comes before the access."""
        return bool(_changing(self.lanes).any())

    @property
    def last(self) -> int:
        """The column of the last word."""
        return int(self.jobs["watched"][0]) - 1

    @property
    def parts(self) -> int:
        """How many words the data takes."""
        return self.last + 1 - len(self.lanes.words) - len(self.lanes.pdpte)

    @property
    def reached(self) -> Words:
        """The physical address of the data."""
        reached: Words = self.jobs["where"][: len(self.lanes), len(self.lanes.words)]
        return reached


def ask(guest: Guest, chain: Chain, lanes: Lanes, mixed: bool = False) -> Question:
    """The jobs for lanes.

    mixed  whether the data is in the frame of the code, so that both are reached by one page
    """
    enums, levels, count = guest.image.enums, len(chain.tables), len(lanes)
    closing = len(lanes.pdpte)
    jobs = guest.image.new_jobs(count + closing)
    ours = jobs[:count]
    lanes.cases.put(ours, enums)
    ours["access"][lanes.wruss] = enums["ACCESS_USER_SHADOW_WRITE"]
    ours["user"][lanes.wruss] = 0
    for kind, name in ((Kind.SHADOW_READ, "RETURN"), (Kind.SHADOW_WRITE, "CALL")):
        ours["access"][lanes.branch & (lanes.kind == kind)] = enums[f"ACCESS_{name}"]
    ours["size"] = lanes.width
    names = (name.upper().replace("-", "_") for name in FLUSHES)
    flushes = np.array([enums[f"FLUSH_{name}"] for name in names], np.uint8)
    ours["flush"] = flushes[lanes.flush]
    for level, table in enumerate(chain.tables):
        here = table.format.levels[level]
        index = (lanes.address >> np.uint64(here.shift)) & np.uint64(here.entries - 1)
        column = levels - 1 - level
        ours["where"][:, column] = np.uint64(table.address) + index * np.uint64(
            table.format.entry_bytes
        )
        ours["word"][:, column] = lanes.words[level]
    frames = chain.data[lanes.page]
    if mixed:
        frames = np.where(lanes.kind == Kind.FETCH, frames, chain.mixed[lanes.page])
    reached = frames | lanes.address & (chain.sizes[lanes.page] - np.uint64(1))
    reached &= ~np.uint64(WORD - 1)
    placed = mark(reached)
    if lanes.implicit.any():
        placed[lanes.implicit] = marks.descriptor(placed)[lanes.implicit]
    last = _put_data(chain, ours, levels, reached, placed)
    ours["patched"] = ours["watched"] = last + closing
    for pdpte, register in zip(lanes.pdpte, lanes.register, strict=True):
        at = np.uint64(chain.cpu.cr3) + register * np.uint64(PDPTE_BYTES)
        ours["where"][:, last], ours["word"][:, last] = at, pdpte
        jobs["patched"][count:] = 1
        jobs["where"][count:, 0] = at[0]
        jobs["word"][count:, 0] = chain.cpu.pdptes[int(register[0])]
    ours["value"] = np.where(_changing(lanes), lanes.changed, ~placed >> _shift(lanes))
    jobs.flags.writeable = False  # under many states, but made and handed over once
    return Question(lanes, jobs, placed)


def _put_data(
    chain: Chain, jobs: npt.NDArray[np.void], column: int, reached: Words, placed: Words
) -> int:
    """Has the data placed from a column of words on; answers the column behind."""
    step = chain.cpu.format.entry_bytes
    for part in range(WORD // step):
        jobs["where"][:, column + part] = reached + np.uint64(part * step)
        jobs["word"][:, column + part] = placed >> np.uint64(8 * step * part)
    jobs["word"][:, column:] &= np.uint64((1 << 8 * step) - 1)
    return column + WORD // step


def data_after(question: Question, results: npt.NDArray[np.void]) -> Words:
    """The eight bytes of data as the guest left them: one word, or two of four bytes."""
    first = len(question.lanes.words)
    data: Words = results["after"][:, first]
    if question.parts > 1:
        data = data | results["after"][:, first + 1] << np.uint64(32)
    return data


def _shift(lanes: Lanes) -> Words:
    """How far right the bytes of an access lie in their word, in bits."""
    return (lanes.address & np.uint64(WORD - 1)) << np.uint64(3)


def _care(lanes: Lanes) -> Words:
    """The bytes of its word that an access is about."""
    return (~np.uint64(0) >> (np.uint64(64) - (lanes.width.astype(np.uint64) << np.uint64(3)))) << (
        _shift(lanes)
    )


@dataclass(frozen=True)
class Answers:
    """What must be seen of lanes that one format gives walks, should the access be made.

    walks    the reference's
    refused  why what is loaded before the access is refused: index into REASONS, 0 where it is not
    found    what is read, or loaded by the code that is fetched
    flips    the bits of the data that change
    vector   by which the access ends all the same
    rip      where fetched code ends, 0 for data
    entries  what becomes of the entries
    marked   the bits that change in the PDPTE, access or not, in the shape of `Lanes.pdpte`
    """

    walks: bulk.Walks
    refused: Bytes
    found: Words
    flips: Words
    vector: Bytes
    rip: Words
    entries: PathEntries
    marked: Words

    def unwalked(self, lanes: Mask) -> Answers:
        """The same where the accesses of some lanes end before there is a walk: not even A above
        the last entry may be set there."""
        if not lanes.any():
            return self
        nothing, entries = np.uint64(0), self.entries
        free, last = np.where(lanes, nothing, entries.free), np.where(lanes, nothing, entries.last)
        return replace(self, entries=replace(entries, free=free, last=last))


def foresee(
    chain: Chain,
    cpu: Cpu,
    question: Question,
    pdpte_reserved: int | None = None,
    walked: Words | None = None,
) -> Answers:
    """What must be seen where `cpu` allows the accesses.

    pdpte_reserved  bits of a PDPTE that make an access fault, if it is no register but read from
                    memory and marked as accessed like any entry
    walked          the addresses by which tables are walked, if not those of the lanes
    """
    lanes, code = question.lanes, code_of(cpu)
    fetch, writes = lanes.kind == Kind.FETCH, x86.writes(lanes.kind)
    through = lanes if walked is None else replace(lanes, address=walked)
    walks, malformed, marked = _walks(cpu, through, pdpte_reserved)
    refused = malformed * _code(Reason.PDPTE_RESERVED) | _changes(cpu, lanes)
    single = lanes.width == 1
    word = walks.physical & ~np.uint64(WORD - 1)
    shift, care = _shift(lanes), _care(lanes)
    found = (mark(word) & care) >> shift
    if lanes.implicit.any():
        found[lanes.implicit] &= np.uint64(0xFFFF_FFFF)  # the base of a segment
    wide = np.uint64((1 << 8 * widest(cpu)) - 1)
    found[fetch] = np.where(single, np.uint64(0), mark(walks.physical) & wide)[fetch]
    found[writes | (lanes.kind == Kind.SHADOW_READ)] = 0
    flips = np.where(writes & (word == question.reached), care, np.uint64(0))
    vector = np.where(single, np.uint8(code.vector), np.uint8(INVALID_OPCODE))
    vector[~fetch] = NO_VECTOR
    end = lanes.address + np.where(single, np.uint64(code.length), np.uint64(code.end))
    rip = np.where(fetch, end if cpu.long else end & np.uint64(LEGACY_SPAN.last), np.uint64(0))
    used = (walks.end != End.NO_ROOT) & (refused == 0)
    used = used & (np.arange(len(lanes.words))[:, np.newaxis] >= walks.level)
    entries = PathEntries.of(cpu.format, lanes.words, used, walks.level, lanes.kind)
    return Answers(walks, refused, found, flips, vector, rip, entries, marked)


def widest(cpu: Cpu) -> int:
    """Bytes of the widest access."""
    return WORD if cpu.long else WORD // 2


def _walks(cpu: Cpu, lanes: Lanes, pdpte_reserved: int | None) -> tuple[bulk.Walks, Mask, Words]:
    """The walks of lanes, where their PDPTEs cannot be loaded, and the bits that change in those.

    There are few different PDPTEs, each of which is loaded once.
    """
    walks = bulk.walk_words(cpu.roots, lanes.words, lanes.address)
    refused, marked = np.zeros(len(lanes), np.bool_), np.zeros_like(lanes.pdpte)
    for number, (pdpte, registers) in enumerate(zip(lanes.pdpte, lanes.register, strict=True)):
        register, size = int(registers[0]), LEGACY_SPAN.size // PDPTES
        own = lanes.address // np.uint64(size) == register
        different, which = np.unique(pdpte, return_inverse=True)
        raws = different.tolist()
        if pdpte_reserved is None:
            loaded = [_loaded(cpu, register, raw) for raw in raws]
            refused = np.array([isinstance(one, Fault) for one in loaded])[which]
        else:
            by_presence = [_loaded(cpu, register, raw) for raw in (0, P)]
            loaded = [by_presence[raw & P] for raw in raws]
            present = own & (pdpte & np.uint64(P) != 0)
            malformed = present & (pdpte & np.uint64(pdpte_reserved) != 0)
            walks.end[malformed], walks.level[malformed] = End.MALFORMED, len(lanes.words)
            read = present & ~malformed
            marked[number, read] = np.uint64(A) & ~pdpte[read]
        first = Virtual(register * size)
        gone = [not isinstance(one, Fault) and root_for(one, first) is None for one in loaded]
        walks.end[own & np.array(gone)[which]] = End.NO_ROOT
    return walks, refused, marked


def _changing(lanes: Lanes) -> Mask:
    """Which lanes change a control register."""
    changing: Mask = lanes.flush >= FLUSHES.index(CHANGES[0])
    return changing


def _changes(cpu: Cpu, lanes: Lanes) -> Bytes:
    """Why bits of a control register cannot be changed, where that is tried."""
    refused = np.zeros(len(lanes), np.uint8)
    if not _changing(lanes).any():
        return refused
    # As they were put there: an engine that takes them for entries marks them.
    pdptes = BufferMemory(np.array(cpu.pdptes, "<u8").view(np.uint8), cpu.base)
    for name in CHANGES:
        these = lanes.flush == FLUSHES.index(name)
        for changed in np.unique(lanes.changed[these]).tolist():
            came = move(cpu, pdptes, **{name: getattr(cpu, name) ^ changed})
            if isinstance(came, Fault):
                refused[these & (lanes.changed == changed)] = _code(came.reason)
    return refused


def _code(reason: Reason | None) -> np.uint8:
    return np.uint8(REASONS.index(reason))


def _loaded(cpu: Cpu, register: int, raw: int) -> Cpu | Fault:
    """What comes of loading the PDPTEs with another in one register."""
    pdptes = np.array(cpu.pdptes, "<u8")
    pdptes[register] = raw
    there = replace(cpu, cr3=0)
    return load(there, there, BufferMemory(pdptes.view(np.uint8)))


def seen(
    guest: Guest,
    chain: Chain,
    question: Question,
    answers: Answers,
    allowed: Mask,
    results: npt.NDArray[np.void],
) -> Seen:
    """What the guest saw, and where that is as it must be if the accesses `allowed` are made."""
    lanes, zero = question.lanes, np.uint64(0)
    ran = results["rip"] == answers.rip
    found = results["data"] == np.where(allowed, answers.found, zero)
    data = question.placed ^ np.where(allowed, answers.flips, zero)
    if lanes.branch.any():
        calls = allowed & lanes.branch & (lanes.kind == Kind.SHADOW_WRITE)
        found |= calls & _in_stub(guest, chain, results["data"])
        data = np.where(calls & lanes.backed, results["data"], data)
    reached = (ran & (results["vector"] == answers.vector) | ~allowed) & (found | ~lanes.backed)
    beyond = answers.walks.physical > np.uint64(chain.memory.span.last)
    reached &= (lanes.backed != beyond) | ~allowed
    reached &= data_after(question, results) == data
    ran &= found & (lanes.kind == Kind.FETCH)
    untouched = np.uint64(guest.image.enums["CR2_UNTOUCHED"])
    agree = partial(_entries_agree, question, answers, results)
    return Seen(results, untouched, answers.entries, reached, ran, agree)


def _in_stub(guest: Guest, chain: Chain, addresses: Words) -> Mask:
    """Which addresses are those of the stub's code in the window, as what CALL stores is."""
    code, offset = guest.image.text, addresses - np.uint64(chain.window.state.window)
    there: Mask = (offset >= np.uint64(code.start)) & (offset < np.uint64(code.stop))
    return there


def _entries_agree(
    question: Question,
    answers: Answers,
    results: npt.NDArray[np.void],
    made: Mask,
    accessed_anyway: Mask | None,
) -> Mask:
    """Whether the entries are as the accesses must leave them, and the PDPTEs."""
    entries = answers.entries
    agree = entries.agree(results, made, entries.after(made, accessed_anyway))
    for pdpte, marked in zip(question.lanes.pdpte, answers.marked, strict=True):
        agree &= results["after"][:, question.last] == pdpte ^ marked
    return agree
