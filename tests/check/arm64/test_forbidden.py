"""What the library says of states of TCR_EL1 that it refuses is what the machine does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from harness.check.arm64.layouts import features_of
from harness.machine.arm64 import guest as module
from harness.machine.arm64.guest import Guest, State
from harness.paging.address import Physical
from harness.paging.arm64.access import Status
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.arm64.formats import GRANULES
from harness.paging.memory import BufferMemory
from tests.machine.arm64.present import QEMU, why_absent

pytestmark = pytest.mark.hw

TABLE, PAGE, AF = 3, 3, 1 << 10


@pytest.fixture(params=("max", "cortex-a72"), scope="module")
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """Of a processor with FEAT_LVA, and of one without."""
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU, cpu=request.param) as one:
        yield one


def found(guest: Guest, tcr: int, granule: str) -> set[int]:
    """What PAR_EL1 holds of addresses of the lower half: every table leads to the next one by its
    first entry, whichever is the root, and the last to a page."""
    size = 1 << GRANULES[granule].page
    first = guest.free[0].start + (16 << 20)
    memory = BufferMemory(guest.ram.buffer, guest.ram.base)
    tables = [first + size * number for number in range(6)]
    for table, below in pairwise(tables):
        memory.store(Physical(table), 8, below | TABLE | AF)
    return set().union(*(asked(guest, State(root, 0, tcr)) for root in tables[:-1]))


def asked(guest: Guest, state: State) -> set[int]:
    jobs = guest.image.new_jobs(4)
    jobs["address"] = np.array([0, 1 << 15, 1 << 47, 1 << 51], np.uint64)
    jobs["access"] = guest.image.enums["TRANSLATE_READ"]
    jobs["flush"] = guest.image.enums["FLUSH_ALL"]
    return {int(one) for one in guest.run(state, jobs)["data"]}


@pytest.mark.parametrize("granule", GRANULES)
def test_of_a_half_whose_size_is_out_of_bounds_every_address_faults(
    guest: Guest, granule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A translation fault at level 0 of the manual, as it must be below the least with FEAT_LVA;
    QEMU has it else too, where the bound might be taken."""
    features = features_of(guest.info)
    if granule not in features.granules:
        pytest.skip(f"the processor has no pages of {granule}")
    monkeypatch.setattr(module, "check_state", lambda *_: None)  # which refuses such a state, too
    translation = int(Status.TRANSLATION.at(0)) << 1 | 1
    refused = 0
    allowed = Cpu.of(Half(granule, 39, 0), None, features=features)
    for tsz in range(64):
        tcr = allowed.tcr & ~63 | tsz
        try:
            replace(allowed, tcr=tcr)
        except ValueError as error:
            assert f"has T0SZ {tsz}, " in str(error)
            refused += 1
            assert {par & 0x7F for par in found(guest, tcr, granule)} == {translation}, tsz
    assert refused > 16
    assert {par & 1 for par in found(guest, allowed.tcr, granule)} == {0, 1}
