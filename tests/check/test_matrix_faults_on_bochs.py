"""The faults that are planted for the matrix, each found on Bochs alone as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from pytest import MonkeyPatch

from harness.check import matrix
from harness.check.rig import Rig, guest_of
from harness.check.stage import MODES, Model
from harness.machine.engines import executor
from harness.machine.errors import Misuse
from tests.check.test_matrix_faults import FAULTS, PLACES, Bench, disagrees
from tests.machine.bochs import PROGRAM, needs_bochs

pytestmark = pytest.mark.hw

OF_1G_PAGES = {
    "4: bit 13 of a large page is not reserved",
    "4: bit 29 of a large page is not reserved",
    "4: a page of level 2 is elsewhere",
}
"""Bochs can have 2 GiB, and beside the stub one frame of 1 GByte fits there, where the data and the
code need one each: the chain has none, and PS=1 at level 2 leads to a table, whose address has
reserved bits set, so that every access faults whatever else the reference has wrong."""


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A guest for long mode and one for the others, with the chains of their modes."""
    needs_bochs()
    with ExitStack() as stack, MonkeyPatch.context():
        made: dict[bool, Rig] = {}

        def rig(model: Model) -> Rig:
            if model.long not in made:
                guest = stack.enter_context(guest_of("bochs", model.guest, PROGRAM))
                made[model.long] = Rig(guest)
                for mode in MODES:
                    other = replace(model, mode=mode)
                    if other.long == model.long and other.lacks(guest.info) is None:
                        made[model.long].chain(other)
            return made[model.long]

        yield rig


def test_there_are_frames_for_each_size_of_page_but_1_gbyte(bench: Bench) -> None:
    """What is said of `OF_1G_PAGES`."""
    chain = bench(Model("4")).chain(Model("4"))
    assert chain.sizes.tolist() == [1 << 12, 1 << 21]
    assert chain.memory.span.last < 3 << 30
    assert chain.tables[1].address & ((1 << 30) - (1 << 13)) & ~(1 << 13 | 1 << 29)


@pytest.mark.parametrize("fault", [one for one in FAULTS if one not in OF_1G_PAGES])
def test_a_fault_in_the_reference_is_found(
    bench: Bench, monkeypatch: MonkeyPatch, fault: str
) -> None:
    mode, where, plant = FAULTS[fault]
    rig = bench(Model(mode))
    condition = f"{PLACES[mode]} and {where}"
    try:
        plan = matrix.plan(
            "quick", [mode], "bochs", rig.guest.info, condition, executor=executor(rig.guest)
        )
    except Misuse as error:
        pytest.skip(str(error))
    usual = [part for part in plan.work if not part.family.model.shadow_stacks]
    plant(monkeypatch)
    assert disagrees(rig, replace(plan, work=tuple(usual)))
