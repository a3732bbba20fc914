"""One batch of POWER's matrix: its jobs for the guest, and whether the guest saw what is expected.

Compared are the interrupt with DSISR and DAR, or SRR1 and SRR0, the data that was read, what was
stored, the code that ran, and every entry of the path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.power.matrix.chain import REGION, Chain, Lanes, content, token
from harness.check.power.matrix.judged import Expected
from harness.check.power.probes import ACCESSES, SAID, SYSTEM_CALL, rules_say
from harness.paging.memory import Mask, Words
from harness.paging.power.access import Interrupt, Kind

STORED: Final = 0x5A5A_C3C3_0F0F_9696
"""What stores store."""

WORD: Final = 8
CALL_AT: Final = 12
"""From where code is fetched to what follows its system call."""

TRANSLATION: Final = tuple(int(one) for one in Interrupt)
"""The interrupts that translation raises."""


def jobs_of(chain: Chain, made: Lanes, by_engine: Expected) -> npt.NDArray[np.void]:
    """Jobs that write the path of each case and the word that it reaches, flush everything, make
    the access, and read all of these back.  Code is not written: it lies there."""
    guest, levels = chain.guest, len(made.words)
    jobs, enums = guest.image.new_jobs(len(made)), guest.image.enums
    fetch = made.kind == Kind.FETCH
    jobs["address"], jobs["value"] = made.address, STORED
    names = [enums[f"ACCESS_{ACCESSES[kind]}"] for kind in Kind]
    jobs["access"] = np.array(names, np.uint8).take(made.kind)
    jobs["user"], jobs["size"], jobs["flush"] = made.user, WORD, enums["FLUSH_ALL"]
    jobs["patched"] = jobs["watched"] = levels + ~fetch
    jobs["where"][:, :levels], jobs["word"][:, :levels] = chain.slots(made).T, made.words.T
    reached = reached_by(chain, made, by_engine)
    jobs["where"][:, levels] = np.where(fetch, np.uint64(chain.data), reached)
    jobs["word"][:, levels] = content(reached)
    return jobs


def reached_by(chain: Chain, made: Lanes, by_engine: Expected) -> Words:
    """Where an access leads, or, if to no memory, would lead."""
    fetch = made.kind == Kind.FETCH
    there = np.where(fetch, np.uint64(chain.code), np.uint64(chain.data))
    usual = there | made.address & np.uint64(REGION - 1) & ~np.uint64(WORD - 1)
    leads = by_engine.allowed & by_engine.backed
    return np.where(leads, by_engine.found.walks.physical, usual)


def agreeing(
    made: Lanes, jobs: npt.NDArray[np.void], results: npt.NDArray[np.void], wanted: Expected
) -> Mask:
    """Whether the guest saw what is expected, in all that can be seen."""
    found = wanted.found
    agree: Mask = np.where(
        wanted.allowed,
        np.where(wanted.backed, _made(made, jobs, results, wanted), _let_through(results)),
        _failed(made, jobs, results, wanted),
    )
    for level, word in enumerate(made.words):
        sets = np.where(found.walks.level == level, found.sets, np.uint64(0))
        agree &= results["after"][:, level] == word | sets
    return agree


def _failed(
    made: Lanes, jobs: npt.NDArray[np.void], results: npt.NDArray[np.void], wanted: Expected
) -> Mask:
    """Whether accesses that fault were not made, and reported so."""
    status, fetch = wanted.found.status.astype(np.uint64), made.kind == Kind.FETCH
    found: Mask = (results["vector"] == wanted.found.interrupt) & (results["completed"] == 0)
    found &= results["data"] == 0
    reported = np.where(fetch, results["srr0"], results["dar"])
    found &= reported == made.address
    found &= np.where(fetch, results["srr1"] & SAID, results["dsisr"]) == status
    levels = len(made.words)
    found &= fetch | (results["after"][:, levels] == jobs["word"][:, levels])
    return found


def _made(
    made: Lanes, jobs: npt.NDArray[np.void], results: npt.NDArray[np.void], wanted: Expected
) -> Mask:
    """Whether accesses that are allowed were made, and reached what they lead to."""
    levels, fetch, write = len(made.words), made.kind == Kind.FETCH, made.kind == Kind.WRITE
    found: Mask = results["completed"] == 1
    found &= results["vector"] == np.where(fetch, SYSTEM_CALL, 0)
    was, after = jobs["word"][:, levels], results["after"][:, levels]
    data = np.where(fetch, token(wanted.found.walks.physical), was)
    found &= results["data"] == np.where(write, np.uint64(0), data)
    found &= fetch | (after == np.where(write, np.uint64(STORED), was))
    found &= ~fetch | (results["srr0"] == made.address + np.uint64(CALL_AT))
    return found


def _let_through(results: npt.NDArray[np.void]) -> Mask:
    """Whether accesses that lead to no memory met no interrupt of translation: what else becomes of
    them is the machine's."""
    return ~np.isin(results["vector"], TRANSLATION)


def expected_text(made: Lanes, wanted: Expected, lane: int) -> str:
    """What is expected of an access, for people."""
    found = wanted.found
    level, sets = int(found.walks.level[lane]), int(found.sets[lane])
    words = made.words[:, lane].tolist()
    after = [word | (sets if number == level else 0) for number, word in enumerate(words)]
    return f"{rules_say(found, lane)}; entries {_words(after)}"


def observed_text(result: np.void, levels: int) -> str:
    """What came of it, for people."""
    names = ("vector", "dsisr", "dar", "srr0", "srr1", "data")
    values = ", ".join(f"{name} {int(result[name]):#x}" for name in names)
    done = "made" if result["completed"] else "not made"
    return f"{done}, {values}; entries {_words(result['after'][:levels].tolist())}"


def _words(words: Iterable[int]) -> str:
    return " ".join(f"{word:#x}" for word in words)
