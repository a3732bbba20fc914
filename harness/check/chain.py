"""A chain of tables, one a level, through which any path can be led by patching its entries.

The guest writes the entries of each case before its access, so one chain serves millions of
cases.  Every size of page has a frame of its own for data and one for code, so that a page
taken for one of another size is seen, and so is a page taken for a table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.check import marks
from harness.check.verdicts import Seen
from harness.check.window import Window, open_window
from harness.machine.guest import Guest, State
from harness.machine.ram import ARENA
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import Bytes, End
from harness.paging.memory import BufferMemory, Mask, Words
from harness.paging.space import TableAllocator
from harness.paging.table import Table
from harness.paging.x86.access import Kind
from harness.paging.x86.bulk import ALLOWED, Outcomes
from harness.paging.x86.cpu import Cpu

_KINDS = {Kind.READ: "ACCESS_READ", Kind.WRITE: "ACCESS_WRITE", Kind.FETCH: "ACCESS_FETCH"}

INVALID_OPCODE = 6
"""The vector by which fetched code ends."""

CODE_END = 10
"""Bytes from the start of fetched code to the instruction that ends it; a page's last byte is
that instruction itself."""

_LAST_BYTE_CODE = 0x06


@dataclass(frozen=True)
class Lanes:
    """Accesses with the entries of their paths, one a lane; arrays of shape (n,).

    words   the entry at each level, shape (levels, n)
    kind    uint8, a `Kind`
    user    from user mode
    ac      with EFLAGS.AC set
    width   uint8, bytes that are read or written, 1 or the width of a word
    page    uint8, the level whose frame the entries lead to
    backed  whether that frame has memory behind it
    """

    words: Words
    address: Words
    kind: Bytes
    user: Mask
    ac: Mask
    width: Bytes
    page: Bytes
    backed: Mask

    def __len__(self) -> int:
        return len(self.address)

    def take(self, chosen: Mask | slice | npt.NDArray[np.int64]) -> Lanes:
        """The chosen lanes."""
        fields = {name: getattr(self, name)[..., chosen] for name in self.__dataclass_fields__}
        return Lanes(**fields)


@dataclass(frozen=True)
class Chain:
    """The tables and frames of a chain in a guest's memory, by level, and the window beside it.

    cpu  with the chain's root, and no more control state than its mode needs
    """

    memory: BufferMemory
    cpu: Cpu
    tables: tuple[Table, ...]
    data: Words
    code: Words
    window: Window

    def state(self, cpu: Cpu) -> State:
        """What the guest has to load to run in the chain under the control state of `cpu`."""
        return replace(self.window.state, cr0=cpu.cr0, cr4=cpu.cr4, efer=cpu.efer)

    @property
    def sizes(self) -> Words:
        """Bytes that an entry spans, by level."""
        levels = self.tables[0].format.levels
        return np.array([level.size for level in levels], np.uint64)

    def put_code(self, addresses: Words, single: Mask) -> None:
        """Puts what a fetch of each address executes into the frame of each size of page.

        single  whether it is one byte, since the page ends there
        """
        for frame, size in zip(self.code, self.sizes, strict=False):
            physical = frame | addresses & (size - np.uint64(1))
            marks.put_code(self.memory, physical[~single])
            self.memory.octets[physical[single].astype(np.int64)] = _LAST_BYTE_CODE


def build(guest: Guest, cpu: Cpu, window_slot: int, allocator: TableAllocator) -> Chain:
    """Makes a chain in the guest's memory, in the format of `cpu`.

    window_slot  of the top table: it is the window's, and no case may use it
    allocator    of tables in that memory

    Raises SpaceError where there is no room.
    """
    memory = BufferMemory(guest.ram.buffer)
    format = cpu.format
    top = cpu.levels - 1
    tables = tuple(allocator.allocate(format, level) for level in range(cpu.levels))
    cpu = replace(cpu, cr3=tables[top].address)
    granted = format.granting(*format.rights)
    below = format.pointer(tables[top - 1].address, top, granted)
    for slot in tables[top].slots():
        if slot.index != window_slot:
            memory.store(slot.address, format.entry_bytes, below)
    data, code = _frames(cpu, memory.span)
    return Chain(memory, cpu, tables, data, code, open_window(memory, cpu, guest.image, allocator))


def _frames(cpu: Cpu, ram: Span) -> tuple[Words, Words]:
    """A frame of data and one of code for each level that may hold pages, from 0 up."""
    data, code, free = [], [], ARENA.stop
    for level in cpu.format.levels:
        free = -(-free // level.size) * level.size
        if free + 2 * level.size - 1 > ram.last:
            break
        data.append(free)
        code.append(free + level.size)
        free += 2 * level.size
    return np.array(data, np.uint64), np.array(code, np.uint64)


@dataclass(frozen=True)
class Question:
    """Lanes as the guest is asked about them, whatever the control state.

    jobs    what it executes.  Its words are the entries from the root down, then a word of
            data: that which a read or write reaches, or one that must stay as it is
    placed  that word before the access
    """

    lanes: Lanes
    jobs: npt.NDArray[np.void]
    placed: Words


def ask(guest: Guest, chain: Chain, lanes: Lanes) -> Question:
    """The jobs for lanes."""
    enums, levels = guest.image.enums, len(chain.tables)
    jobs = guest.image.new_jobs(len(lanes))
    jobs["address"] = lanes.address
    for kind, name in _KINDS.items():
        jobs["access"][lanes.kind == kind] = enums[name]
    jobs["user"], jobs["ac"], jobs["size"] = lanes.user, lanes.ac, lanes.width
    jobs["flush"] = enums["FLUSH_PAGE"]
    jobs["patched"] = jobs["watched"] = levels + 1
    for level, table in enumerate(chain.tables):
        here = table.format.levels[level]
        index = (lanes.address >> np.uint64(here.shift)) & np.uint64(here.entries - 1)
        column = levels - 1 - level
        jobs["where"][:, column] = np.uint64(table.address) + index * np.uint64(
            table.format.entry_bytes
        )
        jobs["word"][:, column] = lanes.words[level]
    reached = chain.data[lanes.page] | lanes.address & (chain.sizes[lanes.page] - np.uint64(1))
    reached &= ~np.uint64(marks.WORD - 1)
    placed = marks.mark(reached)
    jobs["where"][:, levels], jobs["word"][:, levels] = reached, placed
    jobs["value"] = ~placed >> _shift(lanes)
    jobs.flags.writeable = False  # under many states, but made and handed over once
    return Question(lanes, jobs, placed)


def _shift(lanes: Lanes) -> Words:
    """How far right the bytes of an access lie in their word, in bits."""
    return (lanes.address & np.uint64(marks.WORD - 1)) << np.uint64(3)


@dataclass(frozen=True)
class Answers:
    """What must be seen of lanes that one format gives walks, should the access be made.

    walks  the reference's
    found  what is read, or loaded by the code that is fetched
    flips  the bits of the word of data that change
    rip    where fetched code ends, 0 for data
    sets   the bits that change in each entry, shape (levels, n)
    free   the bits that may change in each entry if the access is not made
    """

    walks: bulk.Walks
    found: Words
    flips: Words
    rip: Words
    sets: Words
    free: Words


def foresee(chain: Chain, cpu: Cpu, question: Question) -> Answers:
    """What must be seen where `cpu` allows the accesses."""
    lanes = question.lanes
    walks = bulk.walk_words(cpu.roots, lanes.words, lanes.address)
    fetch, write = lanes.kind == Kind.FETCH, lanes.kind == Kind.WRITE
    single = lanes.width != marks.WORD
    word = walks.physical & ~np.uint64(marks.WORD - 1)
    shift = _shift(lanes)
    care = np.where(single, np.uint64(0xFF) << shift, ~np.uint64(0))
    found = (marks.mark(word) & care) >> shift
    found[fetch] = np.where(single, np.uint64(0), marks.mark(walks.physical))[fetch]
    found[write] = 0
    aimed = word == question.jobs["where"][:, len(chain.tables)]
    flips = np.where(write & aimed, care, np.uint64(0))
    end = np.where(single, lanes.address, lanes.address + np.uint64(CODE_END))
    return Answers(
        walks, found, flips, np.where(fetch, end, np.uint64(0)), *_used(cpu, lanes, walks)
    )


def _used(cpu: Cpu, lanes: Lanes, walks: bulk.Walks) -> tuple[Words, Words]:
    """What an access sets in the entries if it is made, and what it may set if it is not.

    On success A in every entry used and D in the leaf of a write; on a fault nothing, but that
    A above the entry that ended the walk is the machine's choice.
    """
    accessed, dirty = np.uint64(cpu.format.accessed), np.uint64(cpu.format.dirty)
    write = lanes.kind == Kind.WRITE
    rooted = walks.end != End.NO_ROOT
    sets, free = np.zeros_like(lanes.words), np.zeros_like(lanes.words)
    for level in range(len(lanes.words)):
        used = rooted & (walks.level <= level)
        sets[level][used] = accessed
        sets[level][used & write & (walks.level == level)] |= dirty
        sets[level] &= ~lanes.words[level]
        free[level][rooted & (walks.level < level)] = accessed
    return sets, free


def compare(
    guest: Guest,
    question: Question,
    answers: Answers,
    outcomes: Outcomes,
    results: npt.NDArray[np.void],
) -> Seen:
    """Whether the guest saw each access come to its outcome, in everything that shows."""
    enums, lanes = guest.image.enums, question.lanes
    allowed = outcomes.vector == ALLOWED
    fetch = lanes.kind == Kind.FETCH
    done = np.where(fetch, np.uint8(INVALID_OPCODE), np.uint8(enums["VECTOR_NONE"]))
    untouched, zero = np.uint64(enums["CR2_UNTOUCHED"]), np.uint64(0)
    rest: Mask = results["vector"] == np.where(allowed, done, outcomes.vector)
    rest &= (results["completed"] != 0) == allowed
    rest &= results["cr2"] == np.where(outcomes.sets_cr2, lanes.address, untouched)
    ran = results["rip"] == answers.rip
    found = results["data"] == np.where(allowed, answers.found, zero)
    rest &= (ran | ~allowed) & (found | ~lanes.backed)
    word = question.placed ^ np.where(allowed & lanes.backed, answers.flips, zero)
    rest &= results["after"][:, len(lanes.words)] == word
    entries = entries_agree(question, answers, results, allowed)
    error = results["error"] == outcomes.error
    return Seen(results, error, entries, rest, ran & found & fetch)


def entries_agree(
    question: Question,
    answers: Answers,
    results: npt.NDArray[np.void],
    allowed: Mask,
    ends_accessed: Words | None = None,
) -> Mask:
    """Whether the entries are as the accesses must leave them.

    ends_accessed  bits that are set besides in the entry that ends each walk
    """
    words = question.lanes.words
    wrong = np.zeros(len(allowed), np.uint64)
    for level in range(len(words)):
        changed = results["after"][:, len(words) - 1 - level] ^ words[level]
        if ends_accessed is not None:
            here = answers.walks.level == level
            changed ^= np.where(here, ends_accessed & ~words[level], np.uint64(0))
        wrong |= np.where(allowed, changed ^ answers.sets[level], changed & ~answers.free[level])
    agree: Mask = wrong == 0
    return agree
