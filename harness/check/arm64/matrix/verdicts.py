"""One batch of arm64's matrix: its jobs for the guest, and whether the guest saw what is expected.

Compared are ESR_EL1 (its class, WnR and fault status), FAR_EL1, ELR_EL1 of fetches, the data that
was read, what was stored, the code that ran, and every descriptor of the path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.arm64.marks import CODE_BYTES
from harness.check.arm64.matrix.chain import REGION, Chain, Lanes, content, token
from harness.check.arm64.matrix.judged import Expected
from harness.check.arm64.probes import ACCESSES, SAID, SVC
from harness.check.marks import WORD
from harness.paging.arm64.access import Kind
from harness.paging.arm64.bulk import REASONS, writes
from harness.paging.memory import Mask, Words

STORED: Final = 0x5A5A_C3C3_0F0F_9696
"""What is stored."""


def jobs_of(chain: Chain, made: Lanes, by_engine: Expected) -> npt.NDArray[np.void]:
    """Jobs that write the path of each case and the word that it reaches, flush the address, make
    the access, and read all of these back.  Code is not written: it lies there."""
    guest, levels, fetch = chain.guest, len(made.words), made.fetch
    jobs, enums = guest.image.new_jobs(len(made)), guest.image.enums
    jobs["address"], jobs["value"] = made.address, STORED
    names = [f"ACCESS_{ACCESSES[kind]}" for kind in Kind]
    jobs["access"] = np.array([enums[name] for name in names], np.uint8).take(made.kind)
    jobs["user"], jobs["pan"], jobs["uao"] = made.el0, made.pan, made.uao
    jobs["size"], jobs["flush"] = made.size, enums["FLUSH_PAGE"]
    jobs["patched"] = jobs["watched"] = levels + ~fetch
    slots = chain.slots(by_engine.found.walks.address)
    jobs["where"][:, :levels], jobs["word"][:, :levels] = slots.T, made.words.T
    reached = _word_of(reached_by(chain, made))
    word = np.flatnonzero(~fetch)
    jobs["where"][word, levels] = reached[word]
    jobs["word"][word, levels] = content(reached[word])
    return jobs


def reached_by(chain: Chain, made: Lanes) -> Words:
    """Where an access leads, if it is made: its address has the lower bits of what it reaches, but
    for those by which it is in the middle of the root."""
    setting = chain.setting
    lower = min(REGION, 1 << setting.shift(setting.levels - 1)) - 1
    there = np.where(made.fetch, np.uint64(chain.code), np.uint64(chain.data))
    found: Words = there | made.address & np.uint64(lower)
    return found


def _word_of(addresses: Words) -> Words:
    """Where the aligned words begin in which addresses are."""
    found: Words = addresses & ~np.uint64(WORD - 1)
    return found


def agreeing(
    chain: Chain,
    made: Lanes,
    jobs: npt.NDArray[np.void],
    results: npt.NDArray[np.void],
    wanted: Expected,
) -> Mask:
    """Whether the guest saw what is expected, in all that can be seen; and whether that is at all
    possible, the access leading where it must."""
    reached = reached_by(chain, made)
    levels, done, fetch, found = len(made.words), wanted.made, made.fetch, wanted.found
    syndrome = np.where(done, np.where(fetch, np.uint64(SVC), 0), wanted.syndrome(made))
    was, after = jobs["word"], results["after"]
    writing = writes(made.kind)
    low = (reached - _word_of(reached)) << np.uint64(3)  # of the data in its word
    part = np.where(made.size == WORD, ~np.uint64(0), np.uint64((1 << 32) - 1))
    data = was[:, levels] >> low & part
    data = np.where(writing & (made.kind != Kind.AMO), np.uint64(0), data)
    data = np.where(fetch, token(reached), data)
    stored = was[:, levels] & ~(part << low) | (jobs["value"] & part) << low
    word = np.where(done & writing, stored, was[:, levels])
    address = found.walks.address
    agree: Mask = (results["completed"] == done) & (~done | (found.walks.physical == reached))
    agree &= results["esr"] & SAID == syndrome
    agree &= done | (results["far"] == found.far)
    agree &= results["data"] == np.where(done, data, np.uint64(0))
    agree &= fetch | (after[:, levels] == word)
    ends = address + np.where(done, np.uint64(CODE_BYTES), np.uint64(0))
    agree &= ~fetch | (results["elr"] == ends)
    changes, free = wanted.changes, wanted.free
    for level, raw in enumerate(made.words):
        ends_here = found.walks.level == level
        should = raw ^ np.where(ends_here, changes, np.uint64(0))
        care = ~np.where(ends_here, free, np.uint64(0))
        agree &= ((after[:, level] ^ should) & care) == 0
    return agree


def expected_text(made: Lanes, wanted: Expected, lane: int) -> str:
    """What is expected of an access, for people."""
    found, level = wanted.found, int(wanted.found.walks.level[lane])
    changes = int(wanted.changes[lane])
    words = made.words[:, lane].tolist()
    after = [word ^ (changes if number == level else 0) for number, word in enumerate(words)]
    if wanted.made[lane]:
        said = f"reaches {int(found.walks.physical[lane]):#x}"
    else:
        reason = REASONS[found.reason[lane]]
        why = reason.value if reason else "no memory is where the page would be"
        esr, far = int(wanted.syndrome(made)[lane]), int(found.far[lane])
        said = f"ESR {esr:#x}, FAR {far:#x}: {why}"
    return f"{said}; descriptors {_words(after)}"


def observed_text(result: np.void, levels: int) -> str:
    """What came of it, for people."""
    esr, far, elr, data = (int(result[name]) for name in ("esr", "far", "elr", "data"))
    ended = "made" if result["completed"] else "not made"
    said = f"ESR {esr:#x}, FAR {far:#x}, ELR {elr:#x}" if esr else "no exception"
    words = _words(result["after"][:levels].tolist())
    return f"{ended}, {said}, data {data:#x}; descriptors {words}"


def _words(words: Iterable[int]) -> str:
    return " ".join(f"{word:#x}" for word in words)
