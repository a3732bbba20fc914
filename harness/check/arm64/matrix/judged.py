"""What accesses of arm64's matrix come to: by the rules, and by an engine with its quirks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np

from harness.check.arm64.matrix.chain import NOWHERE, Lanes
from harness.check.arm64.matrix.setting import Control, Setting
from harness.check.quirk import Quirk
from harness.paging.address import Physical
from harness.paging.arm64 import bulk
from harness.paging.arm64.access import Kind
from harness.paging.arm64.bulk import Outcomes
from harness.paging.arm64.cpu import Cpu, Half, span_of
from harness.paging.bulk import End, Walks, walk_words
from harness.paging.format import Format, Shape
from harness.paging.memory import Mask, Words
from harness.paging.table import Root, Table

EXTERNAL: Final = 0b010000
"""The fault status code of an access to what is no memory ("ISS encoding for an exception from a
Data Abort": synchronous External abort, not on a walk)."""

_BEYOND: Final = np.uint64(sum(1 << bit for bit in NOWHERE))

Reads = Callable[[Cpu, Format], Format]
"""How an engine reads descriptors, if otherwise than by a format."""


@dataclass(frozen=True)
class Expected:
    """What is expected of accesses, one a lane.

    found   by the rules of translation
    aborts  what is allowed, and leads to no memory: an external abort
    """

    found: Outcomes
    aborts: Mask

    @property
    def made(self) -> Mask:
        """Which accesses are made."""
        allowed: Mask = (self.found.reason == 0) & ~self.aborts
        return allowed

    @property
    def free(self) -> Words:
        """The bits of the leaf that may be changed or not: also what was to be, before the access
        met no memory."""
        freed: Words = np.where(self.aborts, self.found.changes, self.found.may)
        return freed

    @property
    def changes(self) -> Words:
        """The bits of the leaf that are changed."""
        changed: Words = np.where(self.aborts, np.uint64(0), self.found.changes)
        return changed

    def syndrome(self, lanes: Lanes) -> Words:
        """ESR_EL1."""
        exception = np.where(lanes.fetch, 0x20, 0x24) + ~lanes.el0
        write = bulk.writes(lanes.kind) & (lanes.kind != Kind.AMO)
        external = exception << 26 | 1 << 25 | write.astype(np.int64) << 6 | EXTERNAL
        said: Words = np.where(self.aborts, external, self.found.syndrome).astype(np.uint64)
        return said

    def differs(self, other: Expected) -> Mask:
        """The lanes in which something else is expected to be seen."""
        one, two = self.found, other.found
        differs: Mask = one.syndrome != two.syndrome
        differs |= (one.far != two.far) & (one.reason != 0)
        differs |= (one.walks.physical != two.walks.physical) & (one.reason == 0)
        differs |= (self.changes != other.changes) | (self.free != other.free)
        return differs


@dataclass(frozen=True)
class Asked:
    """Accesses, the control state, and how descriptors are read, if otherwise than the rules
    say."""

    setting: Setting
    control: Control
    cpu: Cpu
    lanes: Lanes
    reads: tuple[Reads, ...] = ()

    def outcomes(self, cpu: Cpu | None = None) -> Outcomes:
        """What the accesses come to, in another state of the processor if one is given."""
        cpu, lanes, setting = cpu or self.cpu, self.lanes, self.setting
        format = _read_as(cpu, setting.format(self.control, cpu), self.reads)
        half = Half(setting.granule, setting.address_bits, 0)
        root = Root(
            Table(format, Physical(0), len(format.levels) - 1), span_of(half, self.control.high)
        )
        walks = walk_words([root], lanes.words, bulk.without_tags(cpu, lanes.address, lanes.kind))
        if self.control.epd or 1 << self.control.beyond >> cpu.output_bits(half):
            walks = replace(walks, end=np.full(len(lanes), End.NO_ROOT, np.uint8))
        walks = _without_tables(walks, format, lanes.words)
        return bulk.judge(
            cpu,
            walks,
            lanes.kind,
            lanes.el0,
            pointers=lanes.address,
            aligned=lanes.aligned,
            pan=lanes.pan,
            uao=lanes.uao,
        )


@dataclass(frozen=True, kw_only=True)
class Arm64Quirk(Quirk):
    """A departure of an engine: what it does instead is worked out as the rules are.

    reads   how the engine reads descriptors
    judges  what comes to what it judges
    """

    reads: Reads | None = None
    judges: Callable[[Asked, Outcomes], Outcomes] | None = None


def expected(
    setting: Setting, control: Control, cpu: Cpu, lanes: Lanes, quirks: Iterable[Arm64Quirk] = ()
) -> Expected:
    """What accesses come to by the rules; or on an engine that has quirks."""
    quirks = tuple(quirks)
    reads = tuple(one.reads for one in quirks if one.reads)
    asked = Asked(setting, control, cpu, lanes, reads)
    found = asked.outcomes()
    for one in quirks:
        if one.judges:
            found = one.judges(asked, found)
    aborts = (found.reason == 0) & (found.walks.physical & _BEYOND != 0)
    return Expected(found, aborts)


def chosen(lanes: Mask, of: Outcomes, otherwise: Outcomes) -> Outcomes:
    """The outcomes of one in some lanes, of the other in the rest."""
    parts: dict[str, Any] = {
        one.name: np.where(lanes, getattr(of, one.name), getattr(otherwise, one.name))
        for one in fields(Outcomes)
        if one.name != "walks"
    }
    walks = {
        one.name: np.where(lanes, getattr(of.walks, one.name), getattr(otherwise.walks, one.name))
        for one in fields(Walks)
    }
    return Outcomes(walks=Walks(**walks), **parts)


@lru_cache
def _read_as(cpu: Cpu, format: Format, reads: tuple[Reads, ...]) -> Format:
    """A format as an engine reads it."""
    for read in reads:
        format = read(cpu, format)
    return format


def _without_tables(walks: Walks, format: Format, words: Words) -> Walks:
    """The walks where tables are where no memory is: those that come so far end there, without a
    descriptor."""
    ends, at = np.zeros(len(walks.end), np.bool_), walks.level.copy()
    for level, here in enumerate(format.levels):
        if (pointer := here.pointer) is None:
            continue
        missing = address_in(pointer, words[level]) & _BEYOND != 0
        missing &= (walks.level < level) & (walks.end != End.NO_ROOT)
        at[missing] = level - 1
        ends |= missing
    if not ends.any():
        return walks
    zero = np.uint64(0)
    return replace(
        walks,
        end=np.where(ends, np.uint8(End.UNBACKED), walks.end),
        level=at,
        raw=np.where(ends, zero, walks.raw),
        physical=np.where(ends, zero, walks.physical),
    )


def address_in(shape: Shape, words: Words) -> Words:
    """The addresses in descriptors of a shape."""
    found = np.zeros(len(words), np.uint64)
    for field in shape.address:
        found |= (words & np.uint64(field.mask)) << np.uint64(field.shift)
    return found
