"""A second reading of raw entries and of the accesses through them, by rules that are written out
here from the manuals: it shares nothing with the library's formats, walks and rights.

An engine that departs from a rule cannot bear witness to it.  There this reading does: it says in
which lanes a departure must show, and what the rules say in them.  So a reference that is wrong in
the way in which the engine is, or wrong where the departure would hide it, disagrees.  It says as
well where a page lies, and thereby what a guest must not be asked.

Sources: Intel SDM volume 3A, 4.3 to 4.7, and linear-address-space separation; AMD APM volume 2,
5.3.3.  Bits have their numbers there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Flag, IntEnum, auto
from functools import cached_property

import numpy as np
import numpy.typing as npt

from harness.check.x86.cases import Cases
from harness.paging.bulk import Bytes
from harness.paging.memory import Mask, Memory, Words
from harness.paging.x86.access import Kind
from harness.paging.x86.bulk import ALLOWED, Outcomes
from harness.paging.x86.cpu import Cpu

Errors = npt.NDArray[np.uint32]


class Lapse(Flag):
    """What a reader does otherwise than the manuals say.

    GIGABYTE  maps a 1G page whatever CPUID shows
    PAGE_4M   takes bits 20:13 of a 4M page's entry for bits 39:32 of the address whatever CPUID
              shows, so that bit 21 alone is reserved
    BIT_8     ignores bit 8 of AMD's PML4E and PML5E
    PDPTES    reads PAE's PDPTEs at every access, takes nothing but bits 63:M for reserved, and
              marks them as accessed
    STACK     has no exception of its own for stack references
    IMPLICIT  takes the supervisor's implicit accesses for explicit ones
    AC        takes every implicit access for an explicit one of the supervisor
    KEYS      asks PKRS about whatever the supervisor accesses, and PKRU whether it may write
    UNCHECKED has no exception for the user's addresses that are not canonical, and walks by them
    """

    GIGABYTE = auto()
    PAGE_4M = auto()
    BIT_8 = auto()
    PDPTES = auto()
    STACK = auto()
    IMPLICIT = auto()
    AC = auto()
    KEYS = auto()
    UNCHECKED = auto()


NO_LAPSE = Lapse(0)


class Stop(IntEnum):
    """How a walk ends.

    PAGE      at a page, whatever rights it gives
    ABSENT    at an entry with P=0
    RESERVED  at an entry that is present and has a reserved bit set
    OUTSIDE   before it begins: the address is not canonical
    REFUSED   before it begins: the PDPTEs cannot be loaded
    UNBACKED  at an entry without memory behind it
    """

    PAGE = 0
    ABSENT = 1
    RESERVED = 2
    OUTSIDE = 3
    REFUSED = 4
    UNBACKED = 5


@dataclass(frozen=True)
class Asked:
    """Accesses and the entries that they meet, one lane an access.

    cpu       its registers and what CPUID shows: nothing that is derived from them
    words     the entry at each level, from level 0 up; shape (levels, n)
    pdpte     a PDPTE that is loaded before, and the number of its register; shape (1, n), or
    register  (0, n) where those stay that let every access through
    missing   which entries have no memory behind them; None where all have
    """

    cpu: Cpu
    cases: Cases
    words: Words
    pdpte: Words
    register: Bytes
    missing: Mask | None = None

    def take(self, chosen: Mask) -> Asked:
        """The chosen lanes."""
        return Asked(
            self.cpu,
            self.cases.take(chosen),
            self.words[:, chosen],
            self.pdpte[:, chosen],
            self.register[:, chosen],
            None if self.missing is None else self.missing[:, chosen],
        )


def at(cpu: Cpu, memory: Memory, cases: Cases) -> Asked:
    """Accesses, with the entries in memory that they meet."""
    n, pae = len(cases), _pae(cpu)
    levels = 2 if not _long(cpu) else 5 if cpu.cr4 >> 12 & 1 else 4
    bits, size = (9, 8) if pae else (10, 4)
    asked = by_tables(cpu, cases, np.zeros((levels, n), np.uint64), np.zeros((levels, n), np.bool_))
    table = np.full(n, cpu.cr3 & _ones(cpu.maxphyaddr - 1 if pae else 31, 12), np.uint64)
    if pae and not _long(cpu):
        own = (cases.address >> np.uint64(30)).astype(np.uint8)
        pdpte = np.array(cpu.pdptes, np.uint64)[own]
        if cpu.pdptes_checked is not None:  # read at every walk, from bits 31:5 of CR3 on
            four = np.uint64(cpu.cr3 & _ones(31, 5)) + own.astype(np.uint64) * np.uint64(8)
            pdpte, _ = memory.gather(four, 8)
        table = pdpte & np.uint64(_ones(cpu.maxphyaddr - 1, 12))
        asked = replace(asked, pdpte=pdpte[None], register=own[None])
    assert asked.missing is not None
    for level in reversed(range(levels)):
        index = cases.address >> np.uint64(12 + bits * level) & np.uint64((1 << bits) - 1)
        asked.words[level], backed = memory.gather(table + index * np.uint64(size), size)
        asked.missing[level] = False if backed is None else ~backed
        table = asked.words[level] & np.uint64(_ones(51 if pae else 31, 12))
    return asked


def by_tables(cpu: Cpu, cases: Cases, words: Words, missing: Mask | None = None) -> Asked:
    """Accesses that meet entries of tables alone: no PDPTE is loaded before."""
    pdpte, register = np.empty((0, len(cases)), np.uint64), np.empty((0, len(cases)), np.uint8)
    return Asked(cpu, cases, words, pdpte, register, missing)


@dataclass(frozen=True)
class Walked:
    """How walks end.

    stop    a `Stop`
    level   of the entry at which a walk ends; that above the tables' where it is a PDPTE
    entry   that entry
    marked  whether A gets set in the PDPTE of the address
    """

    stop: Bytes
    level: Bytes
    entry: Words
    marked: Mask

    def take(self, chosen: Mask) -> Walked:
        """The chosen lanes."""
        return Walked(
            self.stop[chosen], self.level[chosen], self.entry[chosen], self.marked[chosen]
        )


@dataclass(frozen=True)
class Reading:
    """How a reader with some lapses takes what was asked; by the manuals if it has none."""

    asked: Asked
    lapses: Lapse = NO_LAPSE

    def take(self, chosen: Mask) -> Reading:
        """The reading of the chosen lanes."""
        part = replace(self, asked=self.asked.take(chosen))
        if "walked" in self.__dict__:
            part.__dict__["walked"] = self.walked.take(chosen)
        return part

    def under(self, cpu: Cpu) -> Reading:
        """The same question under another control state."""
        other = replace(self, asked=replace(self.asked, cpu=cpu))
        if "walked" in self.__dict__ and _walks_by(cpu) == _walks_by(self.asked.cpu):
            other.__dict__["walked"] = self.walked
        return other

    def without(self, lapses: Lapse) -> Reading:
        """That of a reader without some of the lapses."""
        other = replace(self, lapses=self.lapses & ~lapses)
        if not lapses & _IN_WALKS:
            other.__dict__["walked"] = self.walked
        return other

    def departs(self, lapse: Lapse) -> Mask:
        """The lanes that come to something else for one of the lapses."""
        asked = self.asked
        if lapse is Lapse.STACK:
            pushes: Mask = self._by_address & _stack(asked.cases)
            return pushes
        if not self._may_depart(lapse):
            none: Mask = np.zeros(len(asked.cases), np.bool_)
            return none
        other = self.without(lapse)
        if lapse in Lapse.IMPLICIT | Lapse.AC:
            return self.allowed & ~other.allowed | other.separated & ~self.separated
        if lapse is Lapse.KEYS:
            differs: Mask = (self._locked != other._locked) & ~self.separated
            return differs
        ours, theirs = self.walked, other.walked
        differs = (ours.stop != theirs.stop) | (ours.marked != theirs.marked)
        ended = np.isin(ours.stop, (Stop.ABSENT, Stop.RESERVED, Stop.PAGE))
        differs |= ended & (ours.level != theirs.level)
        return differs & ~self.separated

    def _may_depart(self, lapse: Lapse) -> bool:
        """Whether a lapse can play a part at all, as far as it is seen at once."""
        asked, cpu = self.asked, self.asked.cpu
        if lapse is Lapse.GIGABYTE:
            return not cpu.page1gb
        if lapse is Lapse.PAGE_4M:
            return not _pae(cpu)
        if lapse is Lapse.BIT_8:
            return cpu.amd
        if lapse is Lapse.PDPTES:
            return bool(len(asked.pdpte))
        if lapse is Lapse.KEYS:
            return any(_keys(cpu))
        if lapse is Lapse.UNCHECKED:
            return _long(cpu)
        implicit = asked.cases.implicit
        return implicit is not None and bool(implicit.any())

    @cached_property
    def walked(self) -> Walked:
        """How the walks end."""
        asked = self.asked
        n, top = len(asked.cases), len(asked.words) - 1
        stop, level = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
        entry, going, marked = asked.words[0].copy(), np.ones(n, np.bool_), np.zeros(n, np.bool_)

        def end(lanes: Mask, how: Stop, here: int) -> None:
            np.copyto(stop, np.uint8(how), where=lanes)
            np.copyto(level, np.uint8(here), where=lanes)
            if here <= top:
                np.copyto(entry, asked.words[here], where=lanes)
            np.logical_and(going, ~lanes, out=going)

        if _long(asked.cpu):
            sign = asked.cases.address.view(np.int64) >> np.int64(9 * len(asked.words) + 11)
            checked = ~self.by_user | (Lapse.UNCHECKED not in self.lapses)
            end((sign != 0) & (sign != -1) & checked, Stop.OUTSIDE, top + 1)
        loaded = [self._pdptes(*one) for one in zip(asked.pdpte, asked.register, strict=True)]
        for refused, *_ in loaded:
            end(refused, Stop.REFUSED, top + 1)
        for _, absent, reserved, read in loaded:
            end(going & absent, Stop.ABSENT, top + 1)
            end(going & reserved, Stop.RESERVED, top + 1)
            marked |= read
        for here in range(top, -1, -1):
            raw = asked.words[here]
            if asked.missing is not None:
                end(going & asked.missing[here], Stop.UNBACKED, here)
            end(going & (raw & _P == 0), Stop.ABSENT, here)
            large = self._pages(here, raw)
            end(going & (raw & self._mask(here, large) != 0), Stop.RESERVED, here)
            if large is not False:
                end(going & large, Stop.PAGE, here)
        return Walked(stop, level, entry, marked)

    def _pages(self, level: int, raw: Words) -> Mask | bool:
        """Which entries of a level are those of pages."""
        cpu = self.asked.cpu
        if level == 0:
            return True
        if not _pae(cpu):
            may = level == 1 and bool(cpu.cr4 >> 4 & 1)
        else:
            may = level == 1 or (level == 2 and self._has_1g)
        return (raw & _PS != 0) if may else False

    def _mask(self, level: int, large: Mask | bool) -> Words | np.uint64:
        """The bits that must be clear in each entry of a level, given which are those of pages."""
        pointer, page = (np.uint64(self._reserved(level, of_page)) for of_page in (False, True))
        if isinstance(large, bool):
            return page if large else pointer
        masks: Words = np.where(large, page, pointer)
        return masks

    @property
    def _has_1g(self) -> bool:
        return self.asked.cpu.page1gb or bool(self.lapses & Lapse.GIGABYTE)

    def _reserved(self, level: int, page: bool) -> int:
        """The bits that must be clear in an entry that is present."""
        cpu = self.asked.cpu
        if not _pae(cpu):
            return self._reserved_4m() if level and page else 0
        bits = _ones(51 if _long(cpu) else 62, cpu.maxphyaddr)
        bits |= 0 if cpu.efer >> 11 & 1 else 1 << 63
        if page and level:
            bits |= _ones(11 + 9 * level, 13)
        if level >= 3 or (level == 2 and not self._has_1g):
            bits |= 1 << 7
        if level >= 3 and cpu.amd and not self.lapses & Lapse.BIT_8:
            bits |= 1 << 8
        return bits

    def _reserved_4m(self) -> int:
        cpu = self.asked.cpu
        if self.lapses & Lapse.PAGE_4M:
            return 1 << 21
        return _ones(21, min(40, cpu.maxphyaddr) - 19) if cpu.pse36 else _ones(21, 13)

    def _pdptes(self, raw: Words, register: Bytes) -> tuple[Mask, Mask, Mask, Mask]:
        """Which PDPTEs are refused; which are absent, or malformed, at the access; and which are
        marked."""
        own = self.asked.cases.address >> np.uint64(30) == register
        beyond = np.uint64(_ones(63, self.asked.cpu.maxphyaddr))
        present, checked = raw & _P != 0, self.asked.cpu.pdptes_checked
        never = np.zeros_like(own)
        if self.lapses & Lapse.PDPTES:
            wrong = raw & (beyond if checked is None else np.uint64(checked))
            malformed = own & present & (wrong != 0)
            return never, own & ~present, malformed, own & present & ~malformed
        reserved = beyond | np.uint64(_ones(2, 1) | _ones(8, 5))
        return present & (raw & reserved != 0), own & ~present, never, never

    # ---- rights ----

    @cached_property
    def user_page(self) -> Mask:
        """Whether U/S is set in every entry used."""
        return self._all(1 << 2, 1 << 2)

    @cached_property
    def executable(self) -> Mask:
        """Whether XD is clear in every entry used."""
        return self._all(1 << 63, 0)

    def _all(self, bit: int, value: int) -> Mask:
        """Whether a bit has a value in every entry that the walk used."""
        held = np.ones(len(self.asked.cases), np.bool_)
        for level, raw in enumerate(self.asked.words):
            held &= (raw & np.uint64(bit) == np.uint64(value)) | (self.walked.level > level)
        return held

    @cached_property
    def by_user(self) -> Mask:
        """Which accesses count as the user's."""
        cases = self.asked.cases
        return cases.user if cases.implicit is None else cases.user & ~cases.implicit

    @cached_property
    def separated(self) -> Mask:
        """Which accesses LASS ends before there is a walk: the user's in the upper half, and in the
        lower one the supervisor's fetches, and what SMAP would keep from a user page."""
        cases, cpu = self.asked.cases, self.asked.cpu
        if not (_long(cpu) and cpu.cr4 >> 27 & 1):
            return np.zeros(len(cases), np.bool_)
        lower = cases.address.view(np.int64) >= 0
        data = ~self._shielded if cpu.cr4 >> 21 & 1 else np.zeros_like(lower)
        supervisor = lower & np.where(cases.kind == Kind.FETCH, True, data)
        apart: Mask = np.where(self.by_user, ~lower, supervisor)
        return apart

    @property
    def _by_address(self) -> Mask:
        """Which accesses end by their address alone, where a walk would begin."""
        outside: Mask = (self.walked.stop == Stop.OUTSIDE) | self.separated
        return outside

    @cached_property
    def allowed(self) -> Mask:
        """Which accesses are made."""
        cases, cpu = self.asked.cases, self.asked.cpu
        user_page, supervisor = self.user_page, ~self.by_user
        fetch, writes = cases.kind == Kind.FETCH, _writes(cases)
        denied = ~supervisor & ~user_page | fetch & ~self.executable
        denied |= writes & ~self._all(1 << 1, 1 << 1) & (~supervisor | bool(cpu.cr0 >> 16 & 1))
        if cpu.cr4 >> 20 & 1:
            denied |= fetch & supervisor & user_page
        if cpu.cr4 >> 21 & 1:
            denied |= ~fetch & supervisor & user_page & ~self._shielded
        shadow = _shadow(cases)
        denied[shadow] = (~self._shadow_stack | (user_page == supervisor))[shadow]
        made: Mask = (self.walked.stop == Stop.PAGE) & ~denied & ~self._locked & ~self.separated
        return made

    @property
    def _shadow_stack(self) -> Mask:
        """Whether the page is a shadow stack (4.6.1): R/W is clear in its own entry alone, which
        has D."""
        here: Mask = self.walked.entry & np.uint64(1 << 1 | 1 << 6) == np.uint64(1 << 6)
        for level, raw in enumerate(self.asked.words):
            here &= (raw & np.uint64(1 << 1) != 0) | (self.walked.level >= level)
        return here

    @property
    def _shielded(self) -> Mask:
        """Which accesses EFLAGS.AC exempts from SMAP."""
        cases = self.asked.cases
        if cases.implicit is None:
            return cases.ac
        heeds = np.full_like(cases.ac, bool(self.lapses & Lapse.AC))
        if self.lapses & Lapse.IMPLICIT:
            heeds |= ~cases.user
        return cases.ac & (~cases.implicit | heeds)

    @cached_property
    def _locked(self) -> Mask | np.bool_:
        """Which accesses a protection key denies (4.6.2): PKRU's keys are asked about user pages,
        those of PKRS about supervisor pages and the supervisor alone."""
        cases, cpu = self.asked.cases, self.asked.cpu
        pku, pks = _keys(cpu)
        if not (pku or pks):
            return np.bool_(False)
        key = self.walked.entry >> np.uint64(59) & np.uint64(15)
        of_user, of_supervisor = np.uint64(cpu.pkru * pku), np.uint64(cpu.pkrs * pks)
        rights = np.where(self.user_page, of_user, of_supervisor)
        if self.lapses & Lapse.KEYS:
            no_write = of_user & np.uint64(0xAAAA_AAAA)  # the upper of the two bits of each key
            rights = np.where(self.by_user, rights, of_supervisor | no_write)
        rights = rights >> (key << np.uint64(1))
        write_counts = self.by_user | bool(cpu.cr0 >> 16 & 1)
        denied: Mask = (rights & np.uint64(1) != 0) | (rights & np.uint64(2) != 0) & (
            _writes(cases) & write_counts
        )
        denied &= self.user_page | ~self.by_user
        denied &= (cases.kind != Kind.FETCH) & (self.walked.stop == Stop.PAGE)
        return denied

    # ---- what is seen ----

    def exceptions(self, lanes: Mask | None = None) -> tuple[Bytes, Errors]:
        """The vector of the exception that each access raises, or ALLOWED, and its error code.
        Means nothing outside `lanes`, if there are any given."""
        stop, by_address = self.walked.stop, self._by_address
        vector = np.where(by_address, np.uint8(13), _VECTORS.take(stop))
        if not self.lapses & Lapse.STACK:
            vector[by_address & _stack(self.asked.cases)] = 12
        pages = (stop == Stop.PAGE) & ~by_address
        pages &= True if lanes is None else lanes
        error = _ERRORS.take(stop)
        if pages.any():
            there = self.take(pages)  # few, as a rule
            vector[pages] = np.where(there.allowed, np.uint8(ALLOWED), np.uint8(14))
            error[pages] |= there._locked.astype(np.uint32) << np.uint32(5)
        error |= self.described
        error[vector != 14] = 0
        return vector, error

    def says(self, rules: Outcomes, lanes: Mask | None = None) -> Mask:
        """Whether outcomes are what this reading says: the exception with its error code, whether
        it writes CR2, and the level at which a walk ends.  Means nothing outside `lanes`, if there
        are any given."""
        vector, error = self.exceptions(lanes)
        found: Mask = (rules.vector == vector) & (rules.error == error)
        found &= rules.sets_cr2 == (vector == 14)  # page faults alone do
        in_tables = self.walked.level < len(self.asked.words)
        in_tables &= (self.walked.stop != Stop.UNBACKED) & ~self._by_address
        found &= (rules.walks.level == self.walked.level) | ~in_tables
        return found

    @property
    def described(self) -> Errors:
        """The bits of a page fault's error code that describe the access: W, U, I and SS."""
        cases, cpu = self.asked.cases, self.asked.cpu
        reports = cpu.cr4 >> 20 & 1 or (_pae(cpu) and cpu.efer >> 11 & 1)
        error = _writes(cases).astype(np.uint32) << np.uint32(1)
        error |= self.by_user.astype(np.uint32) << np.uint32(2)
        error |= _shadow(cases).astype(np.uint32) << np.uint32(6)
        if reports:
            error |= (cases.kind == Kind.FETCH).astype(np.uint32) << np.uint32(4)
        return error

    @property
    def physical(self) -> Words:
        """Where a page puts the address; nothing that counts where there is none."""
        cpu, entry, level = self.asked.cpu, self.walked.entry, self.walked.level
        pae = _pae(cpu)
        offset_bits = ((9 if pae else 10) * level + 12).astype(np.uint64)
        offset: Words = (np.uint64(1) << offset_bits) - np.uint64(1)
        base: Words = entry & np.uint64(_ones(cpu.maxphyaddr - 1 if pae else 31, 12)) & ~offset
        if not pae:  # of a page of 4M bits 20:13 are bits 39:32 of its address
            high = entry >> np.uint64(13) & np.uint64(0xFF)
            base |= np.where(level == 1, high << np.uint64(32), np.uint64(0))
        physical: Words = base | self.asked.cases.address & offset
        return physical


_P, _PS = np.uint64(1), np.uint64(1 << 7)

_VECTORS = np.array([14, 14, 14, 13, 13, 14], np.uint8)
_ERRORS = np.array([1, 0, 9, 0, 0, 0], np.uint32)
"""By `Stop`, the vector of the exception and P and RSVD of its error code; of a page, should the
access be denied."""

_IN_WALKS = Lapse.GIGABYTE | Lapse.PAGE_4M | Lapse.BIT_8 | Lapse.PDPTES | Lapse.UNCHECKED


def _ones(high: int, low: int) -> int:
    """The bits from `high` down to `low`; none if there are none."""
    return (1 << high + 1) - (1 << low) if high >= low else 0


def _long(cpu: Cpu) -> bool:
    return bool(cpu.efer >> 10 & 1)


def _pae(cpu: Cpu) -> bool:
    return bool(cpu.cr4 >> 5 & 1)


def _keys(cpu: Cpu) -> tuple[bool, bool]:
    """Whether keys of user pages, and those of supervisor pages, are heeded."""
    return _long(cpu) and bool(cpu.cr4 >> 22 & 1), _long(cpu) and bool(cpu.cr4 >> 24 & 1)


def _walks_by(cpu: Cpu) -> tuple[int | bool, ...]:
    """What of a CPU decides how walks end."""
    efer, cr4 = cpu.efer & (1 << 10 | 1 << 11), cpu.cr4 & (1 << 4 | 1 << 5)
    return efer, cr4, cpu.maxphyaddr, cpu.page1gb, cpu.pse36, cpu.amd


def _writes(cases: Cases) -> Mask:
    found: Mask = np.isin(cases.kind, (Kind.WRITE, Kind.PUSH, Kind.SHADOW_WRITE))
    return found


def _shadow(cases: Cases) -> Mask:
    found: Mask = (cases.kind == Kind.SHADOW_READ) | (cases.kind == Kind.SHADOW_WRITE)
    return found


def _stack(cases: Cases) -> Mask:
    found: Mask = (cases.kind == Kind.PUSH) | (cases.kind == Kind.POP)
    return found
