"""Which change of a present entry needs which flush: a table, and a guest that executes it.

Each row is written from the manual, without the library's rules: what an entry says before and
after, and what must be flushed in between.  `execute` compares three things with it at one level:
what the library asks for, what the machine does while that is withheld, and what it does after it.
A row of another architecture needs no more than its names of bits.

Where nothing stale may be seen, a page beside it shows that the machine keeps translations: it is
unmapped at the same time, with no flush.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.check.compare import Comparison
from harness.check.x86.live import NOT_SHOWN, Live
from harness.check.x86.space import GuestSpace
from harness.machine.x86.guest import Guest
from harness.paging import slots
from harness.paging.address import Span, Virtual
from harness.paging.flush import Flush
from harness.paging.format import Format
from harness.paging.value import Value
from harness.paging.x86.cpu import Cr4

RAM_BYTES = 2 << 30
"""What a guest needs: a page of 1 GiB can be moved to another frame then."""

NOTHING, PAGE, GLOBAL_PAGE, ALL = "nothing", "the page", "the page, a global one", "everything"
"""What is to be flushed: ALL is whatever lies below a pointer, global pages included."""


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

    flush   what must be flushed: NOTHING, PAGE, GLOBAL_PAGE or ALL
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
        """The levels that can hold both entries."""
        for number, here in enumerate(format.levels):
            kinds = {self.before.kind, self.after.kind}
            if ("page" in kinds and not here.leaf) or ("table" in kinds and not here.pointer):
                continue
            yield number

    @property
    def keys(self) -> bool:
        """Whether protection keys are to be on; the last of them denies all then."""
        return "KEY" in self.before.bits + self.after.bits


_PAGE, _OTHER = Says("page", ("W", "U", "A", "D")), Says("page", ("W", "U", "A", "D"), 1)
_CLEAN, _STACK = _PAGE.without("D"), _PAGE.without("W")
_READ_ONLY = _CLEAN.without("W")
_TABLE, _ELSEWHERE = Says("table", ("W", "U", "A")), Says("table", ("W", "U", "A"), 1)
_ABSENT = Says("absent")
_MODIFIED, _OPTIONAL = "SDM volume 3A, 4.10.4.2", "SDM volume 3A, 4.10.4.3"
_MAPS, _IGNORED, _USED = "SDM volume 3A, 4.10.2.3", "SDM volume 3A, 4.5", "SDM volume 3A, 4.8"
_TYPES = "a memory type has no effect that an access by one processor could show"
_SAME = "until CR3 is loaded both translate alike, and TCG drops what is global then too"
_REFUSED = "what a key denies is not kept: TCG looks at keys when it fills its TLB"

_SHADOW = "SDM volume 3A, 4.6.1 and 4.10.4.2"
_NO_SHADOW = "only with CR4.CET is it a shadow stack, and TCG has none"

CHANGES = (
    Change("a page unmapped", _PAGE, _ABSENT, PAGE, _MODIFIED),
    Change("a page made malformed", _PAGE, _PAGE.and_("reserved"), PAGE, _MODIFIED),
    Change("a page moved to another frame", _PAGE, _OTHER, PAGE, _MODIFIED),
    Change("a page copied on write", _READ_ONLY, _OTHER, PAGE, _MODIFIED),
    Change("write taken from a page", _PAGE, _PAGE.without("W"), PAGE, _MODIFIED),
    Change("a page taken from users", _PAGE, _PAGE.without("U"), PAGE, _MODIFIED),
    Change("execute taken from a page", _PAGE, _PAGE.and_("XD"), PAGE, _MODIFIED),
    Change("a page given to users", _PAGE.without("U"), _PAGE, PAGE, _OPTIONAL),
    Change("write given to a page", _READ_ONLY, _CLEAN, NOTHING, _OPTIONAL),
    Change("write given to a shadow stack", _STACK, _PAGE, PAGE, _SHADOW, _NO_SHADOW),
    Change("a shadow stack made of a page", _READ_ONLY, _STACK, NOTHING, _OPTIONAL),
    Change("D of a shadow stack cleared", _STACK, _READ_ONLY, PAGE, _USED, _NO_SHADOW),
    Change("execute given to a page", _PAGE.and_("XD"), _PAGE, NOTHING, _OPTIONAL),
    Change("A of a page cleared", _PAGE, _PAGE.without("A"), PAGE, _USED),
    Change("D of a page cleared", _PAGE, _PAGE.without("D"), PAGE, _USED),
    Change("A and D of a page set", _PAGE.without("A", "D"), _PAGE, NOTHING, _OPTIONAL),
    Change("a page made global", _PAGE, _PAGE.and_("G"), PAGE, _MODIFIED, _SAME),
    Change("a page no longer global", _PAGE.and_("G"), _PAGE, GLOBAL_PAGE, _MODIFIED, _SAME),
    Change("another key for a page", _PAGE, _PAGE.and_("KEY"), PAGE, _MODIFIED),
    Change("a key that allows a page", _PAGE.and_("KEY"), _PAGE, PAGE, _MODIFIED, _REFUSED),
    Change("PWT of a page set", _PAGE, _PAGE.and_("PWT"), PAGE, _MODIFIED, _TYPES),
    Change("PCD of a page set", _PAGE, _PAGE.and_("PCD"), PAGE, _MODIFIED, _TYPES),
    Change("PAT of a page set", _PAGE, _PAGE.and_("PAT"), PAGE, _MODIFIED, _TYPES),
    Change("PAT of a page cleared", _PAGE.and_("PAT"), _PAGE, PAGE, _MODIFIED, _TYPES),
    Change("software's bit of a page set", _PAGE, _PAGE.and_(""), NOTHING, _IGNORED),
    Change("a page mapped", _ABSENT, _PAGE, NOTHING, _MAPS),
    Change("a malformed page mended", _PAGE.and_("reserved"), _PAGE, NOTHING, _MAPS),
    Change("a page split into other frames", _PAGE, _TABLE, PAGE, _MODIFIED),
    Change("a table made one page", _TABLE, _PAGE, ALL, _MODIFIED),
    Change("a table unlinked", _TABLE, _ABSENT, ALL, _MODIFIED),
    Change("a pointer made malformed", _TABLE, _TABLE.and_("reserved"), ALL, _MODIFIED),
    Change("another table", _TABLE, _ELSEWHERE, ALL, _MODIFIED),
    Change("write taken from a table", _TABLE, _TABLE.without("W"), ALL, _MODIFIED),
    Change("a table taken from users", _TABLE, _TABLE.without("U"), ALL, _MODIFIED),
    Change("execute taken from a table", _TABLE, _TABLE.and_("XD"), ALL, _MODIFIED),
    Change("a table given to users", _TABLE.without("U"), _TABLE, ALL, _OPTIONAL),
    Change("write given to a table", _TABLE.without("W"), _TABLE, NOTHING, _OPTIONAL),
    Change("execute given to a table", _TABLE.and_("XD"), _TABLE, NOTHING, _OPTIONAL),
    Change("A of a pointer cleared", _TABLE, _TABLE.without("A"), ALL, _USED),
    Change("A of a pointer set", _TABLE.without("A"), _TABLE, NOTHING, _OPTIONAL),
    Change("PWT of a pointer set", _TABLE, _TABLE.and_("PWT"), ALL, _MODIFIED, _TYPES),
    Change("PCD of a pointer set", _TABLE, _TABLE.and_("PCD"), ALL, _MODIFIED, _TYPES),
    Change("software's bit of a pointer set", _TABLE, _TABLE.and_(""), NOTHING, _IGNORED),
    Change("a table linked", _ABSENT, _TABLE, NOTHING, _MAPS),
)
"""Of 4- and 5-level paging.  A right that is given may fault once more, not again (4.10.4.3)."""


def execute(guest: Guest, levels: int, change: Change, level: int) -> list[str]:
    """What contradicts a row at one level, a sentence each; the guest has `RAM_BYTES`.

    A guest that follows every store shows nothing while a flush is withheld, and only the rest is
    compared there.
    """
    keeps = guest.engine.keeps_stale
    wrong = []
    for done in (False, True)[: 1 if change.flush == NOTHING else 2]:
        place = _Place(guest, levels, change, level)
        missing = change.flush != NOTHING and not change.unseen and not done
        asked, found = place.run(done, control=not missing)
        if asked != change.flush:
            wrong.append(f"the library asks to flush {asked}, not {change.flush}")
        first = found.disagreements[0].address if found.disagreements else None
        shown = first is not None and first not in place.control
        if shown and not missing:
            when = "after the flush" if done else "though nothing had to be flushed, or to be seen"
            wrong.append(f"stale {when}: {found.disagreements[0].observed} at {first:#x}")
        if keeps and missing and not shown:
            wrong.append("nothing stale was seen while the flush was withheld")
        if keeps and not missing and not done and first is None:
            wrong.append("the machine kept nothing of the page beside it, in any run")
        if not keeps and missing and not any(r.startswith(NOT_SHOWN) for r in found.not_comparable):
            wrong.append("it was not said that a flush may be missing")
    return wrong


class _Place:
    """A slot at one level of a new space, whose entry is changed by a guest that runs in it.

    control  a page beside it, of another table, that is unmapped without a flush
    """

    def __init__(self, guest: Guest, levels: int, change: Change, level: int) -> None:
        self.space = space = GuestSpace(guest, levels)
        self.change, self.level, self.format = change, level, space.format
        size, page = self.format.levels[level].size, self.format.levels[0].size
        root = self.format.levels[levels - 1].size
        # In a page of 1 GiB, at whose beginning the stub lies, what is touched lies further up.
        self.offset = 128 << 20 if size > 128 << 20 and self._leaf else 0
        self.at, one, other, control = (Virtual(number * root) for number in range(1, 5))
        self.frames = [0, size] if size > guest.ram.size // 4 else []
        if self._leaf and not self.frames:
            self.frames = [int(frame) for frame in space.frames(2, level)]
        self.tables = []
        if self.format.levels[level].pointer:
            everything = self.format.granting(*self.format.rights)
            for scratch in one, other:
                where = Virtual(scratch + self.offset)
                space.map(where, space.frames(1), 0, everything)
                self.tables.append(space.read(space.slot(scratch, level)))
        self.control = Span.of(control, page)
        space.map(control, space.frames(1), 0, space.format.granting("write", "user"))
        cpu = space.cpu
        if change.keys:
            cpu = replace(cpu, cr4=cpu.cr4 | Cr4.PKE, pkru=3 << 30)
        self.live = Live(guest, space.memory, cpu)
        self._put(change.before).done()

    @property
    def _leaf(self) -> bool:
        return "page" in (self.change.before.kind, self.change.after.kind)

    def run(self, flushed: bool, control: bool) -> tuple[str, Comparison]:
        """What the library asks to flush, in the words of the table, and what the guest saw."""
        touched = Span.of(self.at + self.offset, self.format.levels[0].size)
        self.live.probe(self.control, pages=1)
        self.live.probe(touched, pages=1)
        flush = self._put(self.change.after)
        asked = self._asked(flush)
        if flushed:  # TCG drops more than it is told to, where there are large pages: no control
            self.live.flush(flush)
        else:
            flush.done()
            if control:
                self.space.unmap(self.control).done()
        self.live.probe(touched, pages=1)
        self.live.probe(self.control, pages=1)
        return asked, self.live.run()

    def _asked(self, flush: Flush) -> str:
        if not flush:
            return NOTHING
        if flush.everything:
            return ALL if flush.global_pages else "everything but what is global"
        if flush.addresses.tolist() != [self.at]:
            return str(flush)
        return GLOBAL_PAGE if flush.global_pages else PAGE

    def _put(self, says: Says) -> Flush:
        value = Value(self.format, self.level, self._raw(says))
        return slots.put(self.space, self.space.slot(self.at, self.level), value, self.at)

    def _raw(self, says: Says) -> int:
        if says.kind == "absent":
            return 0
        here = self.format.levels[self.level]
        page = says.kind == "page"
        shape = here.leaf if page else here.pointer
        assert shape is not None
        bits = {"": 1 << 52, "reserved": 1 << shape.reserved_mask.bit_length() - 1, **here.bits}
        raw = sum(bits[name] for name in says.bits)
        if page:
            return self.format.leaf(self.frames[says.target], self.level, 0) | raw
        table = shape.address_of(self.tables[says.target])
        return self.format.pointer(table, self.level, 0) | raw
