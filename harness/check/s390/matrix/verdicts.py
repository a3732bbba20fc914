"""What accesses of s390's matrix come to; a batch as jobs for the guest, and whether the guest saw
what is expected.

Compared are the program interruption with its TEID, the data that was read, what was stored, the
code that ran, the storage key, and every entry of the path.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.s390.cases import SPACE_OF
from harness.check.s390.marks import CODE_BYTES
from harness.check.s390.matrix.chain import NO_LEVEL, NOWHERE, Chain, Lanes, content
from harness.check.s390.probes import ACCESSES, CHANGED, REFERENCED, named
from harness.paging.bulk import Bytes, End, Walks, walk_words
from harness.paging.memory import Mask
from harness.paging.s390 import bulk
from harness.paging.s390.access import Code, Kind
from harness.paging.s390.bulk import ALLOWED, REASONS, Outcomes
from harness.paging.s390.cpu import Cpu

STORED: Final = 0x5A5A_C3C3_0F0F_9696
"""What is stored."""

BEYOND: Final = np.uint64(sum(1 << bit for bit in NOWHERE))


@dataclass(frozen=True)
class Expected:
    """What is expected of accesses, one a lane.

    found   by the rules of translation
    code    the program interruption, ALLOWED where there is none: also that no memory is where a
            page leads, which is no matter of translation (Addressing Exception)
    """

    found: Outcomes
    code: Bytes

    @property
    def made(self) -> Mask:
        """Which accesses are made."""
        made: Mask = self.code == ALLOWED
        return made


def expected(cpu: Cpu, lanes: Lanes) -> Expected:
    """What accesses come to by the rules."""
    walks = walk_words(cpu.roots, lanes.words, lanes.address)
    found = bulk.judge(cpu, _without_tables(walks, lanes), lanes.kind, SPACE_OF.take(lanes.kind))
    fails = (found.code == ALLOWED) & (found.walks.physical & BEYOND != 0)
    return Expected(found, np.where(fails, np.uint8(Code.ADDRESSING), found.code))


def _without_tables(walks: Walks, lanes: Lanes) -> Walks:
    """The walks where pointers lead to where no memory is: those that come so far, and find that
    the table has the entry, end there without it."""
    missing = np.full(len(lanes), NO_LEVEL, np.uint8)
    for level in range(1, len(lanes.words)):  # the highest counts
        missing[lanes.words[level] & BEYOND != 0] = level - 1
    outside = (walks.end == End.OUTSIDE) & (walks.level == missing)
    ends = (walks.level <= missing) & (missing != NO_LEVEL) & (walks.end != End.NO_ROOT) & ~outside
    zero = np.uint64(0)
    return replace(
        walks,
        end=np.where(ends, np.uint8(End.UNBACKED), walks.end),
        level=np.where(ends, missing, walks.level),
        raw=np.where(ends, zero, walks.raw),
        physical=np.where(ends, zero, walks.physical),
    )


def jobs_of(chain: Chain, made: Lanes, wanted: Expected) -> npt.NDArray[np.void]:
    """Jobs that write the path of each case and the word that it reaches, flush everything, make
    the access, and read all of these back.  Code is not written: it lies there."""
    guest, levels = chain.guest, len(made.words)
    jobs, enums = guest.image.new_jobs(len(made)), guest.image.enums
    jobs["address"], jobs["value"], jobs["user"] = made.address, STORED, made.user
    names = [f"ACCESS_{ACCESSES[kind]}" for kind in Kind]
    jobs["access"] = np.array([enums[name] for name in names], np.uint8).take(made.kind)
    jobs["flush"] = enums["FLUSH_ALL"]
    jobs["patched"] = jobs["watched"] = levels + ~made.fetch
    jobs["where"][:, :levels], jobs["word"][:, :levels] = chain.slots(made).T, made.words.T
    reached = chain.reached(made)
    word = np.flatnonzero(~made.fetch)
    jobs["where"][word, levels] = reached[word]
    jobs["word"][word, levels] = content(reached[word])
    jobs["keyed"] = wanted.made
    jobs["frame"] = reached & ~np.uint64(4095)
    return jobs


def agreeing(
    chain: Chain,
    made: Lanes,
    jobs: npt.NDArray[np.void],
    results: npt.NDArray[np.void],
    wanted: Expected,
) -> Mask:
    """Whether the guest saw what is expected, in all that can be seen."""
    levels, found, done = len(made.words), wanted.found, wanted.made
    writes, reached = made.kind == Kind.WRITE, chain.reached(made)
    none = np.uint16(chain.guest.image.enums["CODE_NONE"])
    agree: Mask = (results["completed"] == done) & (~done | (found.walks.physical == reached))
    agree &= results["code"] == np.where(done, none, wanted.code)
    agree &= results["data"] == np.where(done & ~writes, content(reached), np.uint64(0))
    agree &= (found.teid == 0) | (results["teid"] == found.teid)
    agree &= ~(done & made.fetch) | (results["address"] == made.address + np.uint64(CODE_BYTES))
    marks = np.where(found.changes, REFERENCED | CHANGED, REFERENCED)
    agree &= ~done | (results["key"] == marks)
    after = results["after"]
    for level, word in enumerate(made.words):
        agree &= after[:, level] == word
    stays = np.where(done & writes, np.uint64(STORED), jobs["word"][:, levels])
    agree &= made.fetch | (after[:, levels] == stays)
    return agree


def expected_text(made: Lanes, wanted: Expected, lane: int) -> str:
    """What is expected of an access, for people."""
    code, found = int(wanted.code[lane]), wanted.found
    if code == ALLOWED:
        change = ", sets the change bit" if found.changes[lane] else ""
        said = f"reaches {int(found.walks.physical[lane]):#x}{change}"
    else:
        reason = REASONS[found.reason[lane]]
        why = reason.value if reason else "no memory is where the page would be"
        teid = f", TEID {int(found.teid[lane]):#x}" if found.teid[lane] else ""
        said = f"{named(code)}{teid}, level {int(found.walks.level[lane])}: {why}"
    return f"{said}; entries {_words(made.words[:, lane].tolist())}"


def observed_text(result: np.void, levels: int) -> str:
    """What came of it, for people."""
    ended = f"{named(int(result['code']))}, TEID {int(result['teid']):#x}"
    ended = f"made, storage key {int(result['key']):#x}" if result["completed"] else ended
    entries = _words(result["after"][:levels].tolist())
    return f"{ended}, data {int(result['data']):#x}; entries {entries}"


def _words(words: Iterable[int]) -> str:
    return " ".join(f"{word:#x}" for word in words)
