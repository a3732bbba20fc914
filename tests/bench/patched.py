"""The probes that a guest executes: of one page, whose entry each of them writes anew."""

from __future__ import annotations

import shutil
from typing import Any, Final

import numpy as np

from harness.check.space import GuestSpace
from harness.machine.guest import StubGuest
from harness.machine.ram import MIB
from harness.machine.stub import Build
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from tests.bench.measure import Figure, rate

RAM: Final = 128 * MIB
"""Of the guests that can have less than the tables of a space and frames take."""
PROBES: Final = 60_000
PAGE: Final = Virtual(0x1234_5000)


def missing(program: str, build: Build) -> bool:
    """Whether there is no such QEMU or no stub for it, which is printed."""
    absent = [what for what in (program, str(build.path)) if shutil.which(what) is None]
    if absent:
        print(f"no figures of {build.called}: there is no {absent[0]}")
    return bool(absent)


def frame_in(space: GuestSpace) -> Physical:
    """A frame for the page, and the tables that lead to its entry, which is absent."""
    space.populate(Span.of(PAGE, space.format.levels[0].size))
    return Physical(int(space.frames(1)[0]))


def probes(
    name: str,
    guest: StubGuest[Any, Any],
    space: GuestSpace,
    state: object,
    words: list[int],
    accesses: tuple[str, str],
) -> Figure:
    """One patched entry and flush of its page each, read and written, by user and supervisor.

    space     has the tables for the page
    state     what the guest loads to translate by them
    words     of its entry, each as likely: two to four accesses in five fault
    accesses  the stub's names of a read and a write
    """
    random, enums = np.random.default_rng(3), guest.image.enums
    jobs = guest.image.new_jobs(PROBES)
    jobs["address"], jobs["flush"] = PAGE, enums["FLUSH_PAGE"]
    if "size" in (jobs.dtype.names or ()):
        jobs["size"] = space.format.entry_bytes
    jobs["access"] = random.choice([enums[f"ACCESS_{one}"] for one in accesses], PROBES)
    jobs["user"] = random.integers(0, 2, PROBES)
    jobs["patched"] = 1
    path = bulk.paths(space.memory, space.cpu.roots[0], np.array([PAGE], np.uint64))
    assert path.used.all()
    jobs["where"][:, 0] = path.slot[0]
    jobs["word"][:, 0] = random.choice(np.array(words, np.uint64), PROBES)
    idle = guest.image.new_jobs(PROBES)
    faults = guest.run(state, jobs)["completed"] == 0
    assert 0.4 < faults.mean() < 0.9
    return rate(
        name,
        PROBES,
        lambda: guest.run(state, jobs),
        "as many jobs that do nothing",
        lambda: guest.run(state, idle),
    )
