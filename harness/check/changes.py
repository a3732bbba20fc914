"""Which change of a present entry needs which flush: a table, and a guest that executes it.

Each row is written from the manual, without the library's rules: what an entry says before and
after, and what must be flushed in between.  `execute` compares three things with it at one level:
what the library asks for, what the machine does while that is withheld, and what it does after it.
The rows are an architecture's.

Where nothing stale may be seen, a page beside it shows that the machine keeps translations: it is
unmapped at the same time, with no flush; or by itself, where a machine drops what it keeps when
accesses of other rights are made (RISC-V's TCG, at a change of mstatus).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from harness.check.compare import Comparison
from harness.check.live import NOT_SHOWN, Live
from harness.check.space import GuestSpace
from harness.machine.guest import StubGuest
from harness.paging import slots
from harness.paging.address import Span, Virtual
from harness.paging.flush import Flush
from harness.paging.format import Format
from harness.paging.value import Value

RAM_BYTES = 2 << 30
"""What a guest needs: a page of 1 GiB can be moved to another frame then."""

NOTHING, PAGE, GLOBAL_PAGE = "nothing", "the page", "the page, a global one"
OWN, ALL = "everything but what is global", "everything"
"""What is to be flushed: OWN and ALL are whatever lies below a pointer, ALL with global pages."""


S = TypeVar("S", bound=GuestSpace)


@dataclass(frozen=True)
class Says:
    """What an entry says.

    kind    "absent", "page" or "table"
    bits    names of the bits that are set besides, as the format has them; "" is one that is the
            software's, "reserved" one that must be clear
    target  0 or 1: to which of two frames or tables it leads
    """

    kind: str
    bits: tuple[str, ...] = ()
    target: int = 0

    def without(self, *bits: str) -> Says:
        return replace(self, bits=tuple(bit for bit in self.bits if bit not in bits))

    def and_(self, *bits: str) -> Says:
        return replace(self, bits=(*self.bits, *bits))


@dataclass(frozen=True)
class Change:
    """A row of the table.

    flush   what must be flushed: NOTHING, PAGE, GLOBAL_PAGE, OWN or ALL
    source  section of the manual
    unseen  why no engine that runs here shows that the flush was withheld; empty where TCG does
    """

    name: str
    before: Says
    after: Says
    flush: str
    source: str
    unseen: str = ""

    def levels(self, format: Format) -> Iterator[int]:
        """The levels that can hold both entries; of a page, where the guest has room for two."""
        for number, here in enumerate(format.levels):
            kinds = {self.before.kind, self.after.kind}
            if "page" in kinds and 2 * here.size > RAM_BYTES:
                continue
            if ("page" in kinds and not here.pages) or ("table" in kinds and not here.pointer):
                continue
            yield number


def execute(
    guest: StubGuest[Any, Any],
    new_space: Callable[[], S],
    new_live: Callable[[S], Live],
    change: Change,
    level: int,
    *,
    software: int,
    apart: bool = False,
) -> list[str]:
    """What contradicts a row at one level, a sentence each; the guest has `RAM_BYTES`.

    software  the bit that is the software's
    apart     whether the page beside it is looked at by itself

    A guest that follows every store shows nothing while a flush is withheld, and only the rest is
    compared there.
    """
    keeps = guest.engine.keeps_stale
    wrong = []
    for done in (False, True)[: 1 if change.flush == NOTHING else 2]:
        place = _Place(new_space(), new_live, change, level, software)
        missing = change.flush != NOTHING and not change.unseen and not done
        asked, found = place.run(done, control=not missing and not apart)
        if asked != change.flush:
            wrong.append(f"the library asks to flush {asked}, not {change.flush}")
        first = found.disagreements[0].address if found.disagreements else None
        shown = first is not None and first not in place.control
        if shown and not missing:
            when = "after the flush" if done else "though nothing had to be flushed, or to be seen"
            wrong.append(f"stale {when}: {found.disagreements[0].observed} at {first:#x}")
        if keeps and missing and not shown:
            wrong.append("nothing stale was seen while the flush was withheld")
        if apart and not missing and not done:
            beside = _Place(new_space(), new_live, change, level, software).run_control()
            first = beside.disagreements[0].address if beside.disagreements else None
        if keeps and not missing and not done and first is None:
            wrong.append("the machine kept nothing of the page beside it, in any run")
        if not keeps and missing and not any(r.startswith(NOT_SHOWN) for r in found.not_comparable):
            wrong.append("it was not said that a flush may be missing")
    return wrong


class _Place:
    """A slot at one level of a new space, whose entry is changed by a guest that runs in it.

    control  a page beside it, of another table, that is unmapped without a flush
    """

    def __init__(
        self,
        space: S,
        new_live: Callable[[S], Live],
        change: Change,
        level: int,
        software: int,
    ) -> None:
        self.space, self.software = space, software
        self.change, self.level, self.format = change, level, space.format
        size, page = self.format.levels[level].size, self.format.levels[0].size
        root = self.format.levels[-1].size
        # In a page of 1 GiB, at whose beginning the stub lies, what is touched lies further up.
        self.offset = 128 << 20 if size > 128 << 20 and self._leaf else 0
        self.at, one, other, control = (Virtual(number * root) for number in range(1, 5))
        ram = space.memory.span
        self.frames = [ram.first, ram.first + size] if size > ram.size // 4 else []
        if self._leaf and not self.frames:
            self.frames = [int(frame) for frame in space.frames(2, level)]
        self.tables = []
        if self.format.levels[level].pointer:
            everything = self._granting("read", "write", "user", "execute")
            for scratch in one, other:
                where = Virtual(scratch + self.offset)
                space.map(where, space.frames(1), 0, everything).done()
                self.tables.append(space.read(space.slot(scratch, level)))
        self.control = Span.of(control, page)
        space.map(control, space.frames(1), 0, self._granting("read", "write", "user")).done()
        self.live = new_live(space)
        self._put(change.before).done()
        # The guest has not run yet, and so knows of no table that was absent.
        known = Flush()
        known.add_everything()
        space.settle(known)
        known.done()

    @property
    def _leaf(self) -> bool:
        return "page" in (self.change.before.kind, self.change.after.kind)

    def run(self, flushed: bool, control: bool) -> tuple[str, Comparison]:
        """What the library asks to flush, in the words of the table, and what the guest saw."""
        touched = Span.of(self.at + self.offset, self.format.levels[0].size)
        self.live.probe(self.control)
        self.live.probe(touched)
        flush = self._put(self.change.after)
        asked = self._asked(flush)
        if flushed:  # TCG drops more than it is told to, where there are large pages: no control
            self.live.flush(flush)
        else:
            flush.done()
            if control:
                self.space.unmap(self.control).done()
        self.live.probe(touched)
        self.live.probe(self.control)
        return asked, self.live.run()

    def run_control(self) -> Comparison:
        """What the guest saw of the page beside it alone."""
        self.live.probe(self.control)
        self.space.unmap(self.control).done()
        self.live.probe(self.control)
        return self.live.run()

    def _asked(self, flush: Flush) -> str:
        if not flush:
            return NOTHING
        if flush.everything:
            return ALL if flush.global_pages else OWN
        if flush.addresses.tolist() != [self.at]:
            return str(flush)
        return GLOBAL_PAGE if flush.global_pages else PAGE

    def _put(self, says: Says) -> Flush:
        value = Value(self.format, self.level, self._raw(says))
        return slots.put(self.space, self.space.slot(self.at, self.level), value, self.at)

    def _granting(self, *rights: str) -> int:
        """Those rights that the format has."""
        return self.format.granting(*(set(rights) & set(self.format.rights)))

    def _raw(self, says: Says) -> int:
        here = self.format.levels[self.level]
        if says.kind == "absent":
            return here.empty
        page = says.kind == "page"
        shape = here.pages[-1] if page else here.pointer
        assert shape is not None
        to = self.frames[says.target] if page else shape.address_of(self.tables[says.target])
        raw = shape.clean.value | shape.encode(to) | (shape.bounds.last if shape.bounds else 0)
        wrong = 1 << shape.reserved_mask.bit_length() >> 1 if "reserved" in says.bits else 0
        names = {**here.bits, "": self.software, "reserved": 0}
        return (raw | sum(names[name] for name in says.bits)) ^ wrong
