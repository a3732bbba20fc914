"""One batch of RISC-V's matrix: its jobs for the guest, and whether the guest saw what is expected.

Compared are the exception with its cause and tval, the data that was read, what was stored, the
code that ran, and every entry of the path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.riscv.matrix.chain import ACCESSES, REGION, Chain, Lanes, content, token
from harness.check.riscv.matrix.judged import Expected
from harness.paging.memory import Mask, Words
from harness.paging.riscv.bulk import ALLOWED, REASONS

STORED: Final = 0x5A5A_C3C3_0F0F_9696
"""What stores and AMOs store, as far as they are wide enough."""

_STUB_ACCESS: Final = ("ACCESS_LOAD", "ACCESS_STORE", "ACCESS_FETCH", "ACCESS_AMO", "ACCESS_LR")
_FETCH, _WRITE, _AMO = (ACCESSES.index(name) for name in ("fetch", "write", "amo"))
_USER_CALL, _SUPERVISOR_CALL = 8, 9
"""The causes of ECALL, with which code that was fetched ends."""


def jobs_of(chain: Chain, made: Lanes, by_engine: Expected) -> npt.NDArray[np.void]:
    """Jobs that write the path of each case and the word that it reaches, flush everything, make
    the access, and read all of these back.  Code is not written: it lies there."""
    guest, levels, width = chain.guest, len(made.words), chain.format.entry_bytes
    jobs, enums = guest.image.new_jobs(len(made)), guest.image.enums
    fetch = made.access == _FETCH
    jobs["address"], jobs["value"] = made.address, STORED & (1 << 8 * width) - 1
    jobs["access"] = np.array([enums[name] for name in _STUB_ACCESS], np.uint8).take(made.access)
    for name in ("user", "sum", "mxr", "mprv"):
        jobs[name] = getattr(made, name)
    jobs["size"], jobs["flush"] = width, enums["FLUSH_ALL"]
    jobs["patched"] = jobs["watched"] = levels + ~fetch
    slots = chain.slots(by_engine.walks.address)
    jobs["where"][:, :levels], jobs["word"][:, :levels] = slots.T, made.words.T
    reached = reached_by(chain, made, by_engine)
    jobs["where"][:, levels] = np.where(fetch, np.uint64(chain.data), reached)
    jobs["word"][:, levels] = content(reached, width)
    return jobs


def reached_by(chain: Chain, made: Lanes, by_engine: Expected) -> Words:
    """Where an access leads, or, if to no memory, would lead."""
    there = np.where(made.access == _FETCH, np.uint64(chain.code), np.uint64(chain.data))
    leads = (by_engine.cause == ALLOWED) & by_engine.backed
    usual = there | made.address & np.uint64(REGION - 1)
    return np.where(leads, by_engine.walks.physical, usual)


def agreeing(
    chain: Chain,
    made: Lanes,
    jobs: npt.NDArray[np.void],
    results: npt.NDArray[np.void],
    wanted: Expected,
) -> Mask:
    """Whether the guest saw what is expected, in all that can be seen."""
    faults = wanted.cause != ALLOWED
    failed, done = _failed(made, jobs, results, wanted), _made(chain, made, jobs, results, wanted)
    agree: Mask = np.where(faults, failed, done)
    after = results["after"]
    for level, word in enumerate(made.words):
        ends_here = wanted.walks.level == level
        sets = np.where(ends_here, wanted.sets, np.uint64(0))
        care = ~np.where(ends_here, wanted.free, np.uint64(0))
        agree &= ((after[:, level] ^ (word | sets)) & care) == 0
    return agree


def _failed(
    made: Lanes, jobs: npt.NDArray[np.void], results: npt.NDArray[np.void], wanted: Expected
) -> Mask:
    """Whether accesses that fault were not made, and reported so."""
    found: Mask = (results["cause"] == wanted.cause) & (results["completed"] == 0)
    found &= (results["tval"] == wanted.walks.address) & (results["data"] == 0)
    fetch = made.access == _FETCH
    found &= ~fetch | (results["epc"] == made.address)
    levels = len(made.words)
    found &= fetch | (results["after"][:, levels] == jobs["word"][:, levels])
    return found


def _made(
    chain: Chain,
    made: Lanes,
    jobs: npt.NDArray[np.void],
    results: npt.NDArray[np.void],
    wanted: Expected,
) -> Mask:
    """Whether accesses that are allowed were made, and reached what they lead to."""
    levels = len(made.words)
    enums, fetch = chain.guest.image.enums, made.access == _FETCH
    calls = np.where(made.user, np.uint32(_USER_CALL), np.uint32(_SUPERVISOR_CALL))
    none = np.uint32(enums["CAUSE_NONE"])
    found: Mask = (results["completed"] == 1) & (results["cause"] == np.where(fetch, calls, none))
    was, after = jobs["word"][:, levels], results["after"][:, levels]
    data = np.where(made.access == _WRITE, np.uint64(0), was)
    data = np.where(fetch, token(wanted.walks.physical), data)
    writes = (made.access == _WRITE) | (made.access == _AMO)
    found &= results["data"] == data
    found &= fetch | (after == np.where(writes, jobs["value"], was))
    found &= ~fetch | (results["epc"] == made.address + np.uint64(8))
    return found


def expected_text(made: Lanes, wanted: Expected, lane: int) -> str:
    """What is expected of an access, for people."""
    level, sets = int(wanted.walks.level[lane]), int(wanted.sets[lane])
    words = made.words[:, lane].tolist()
    after = [word | (sets if number == level else 0) for number, word in enumerate(words)]
    cause = int(wanted.cause[lane])
    if cause == ALLOWED:
        said = f"reaches {int(wanted.walks.physical[lane]):#x}"
    else:
        reason = REASONS[wanted.reason[lane]]
        why = reason.value if reason else "no memory is where the page would be"
        said = f"cause {cause}, tval {int(wanted.walks.address[lane]):#x}, level {level}: {why}"
    return f"{said}; entries {_words(after)}"


def observed_text(result: np.void, levels: int) -> str:
    """What came of it, for people."""
    cause, tval, data = (int(result[name]) for name in ("cause", "tval", "data"))
    ended = f"cause {cause}, tval {tval:#x}" if result["completed"] == 0 else "made"
    return f"{ended}, data {data:#x}; entries {_words(result['after'][:levels].tolist())}"


def _words(words: Iterable[int]) -> str:
    return " ".join(f"{word:#x}" for word in words)
