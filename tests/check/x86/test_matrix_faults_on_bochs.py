"""The faults that are planted for the matrix, each found on Bochs alone as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from pytest import MonkeyPatch

from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.rig import Rig, guest_of
from harness.check.x86.matrix.stage import MODES, Model
from harness.machine.errors import Misuse
from harness.machine.machine import Processor
from harness.machine.x86.engines import executor
from tests.check.x86.test_matrix_faults import (
    FAULTS,
    ON_KVM,
    ON_OTHERS,
    PLACES,
    Bench,
    disagrees,
    families_made_once,
)
from tests.check.x86.test_quirk_plants import PLANTS
from tests.machine.bochs import PROGRAM, needs_bochs

pytestmark = pytest.mark.hw

OF_1G_PAGES = {
    "4: bit 13 of a large page is not reserved",
    "4: bit 29 of a large page is not reserved",
    "4: a page of level 2 is elsewhere",
    "1G pages are there without CPUID",
    "PS of a PDPTE is never reserved",
}
"""Bochs can have 2 GiB, and beside the stub one frame of 1 GByte fits there, where the data and the
code need one each: the chain has none, and PS=1 at level 2 leads to a table, whose address has
reserved bits set, so that every access faults whatever else the reference has wrong."""


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A guest for each processor in long mode and in the others, with the chains of its modes."""
    needs_bochs()
    with ExitStack() as stack, families_made_once():
        made: dict[tuple[Processor, int], Rig] = {}

        def rig(model: Model) -> Rig:
            key = replace(model, mode=Model("4").mode if model.long else Model("32").mode).guest
            if key not in made:
                made[key] = Rig(stack.enter_context(guest_of("bochs", key, PROGRAM)))
                for mode in MODES:
                    other = replace(model, mode=mode)
                    if other.long == model.long and other.lacks(made[key].guest.info) is None:
                        made[key].chain(other)
            return made[key]

        yield rig


def test_there_are_frames_for_each_size_of_page_but_1_gbyte(bench: Bench) -> None:
    """What is said of `OF_1G_PAGES`."""
    chain = bench(Model("4")).chain(Model("4"))
    assert chain.sizes.tolist() == [1 << 12, 1 << 21]
    assert chain.memory.span.last < 3 << 30
    assert chain.tables[1].address & ((1 << 30) - (1 << 13)) & ~(1 << 13 | 1 << 29)


_FAULTS = FAULTS.items()
WHERE = {
    name: where
    for name, where in (
        *((n, (mode, f"{some} and {PLACES[mode]}", plant)) for n, (mode, some, plant) in _FAULTS),
        *ON_OTHERS.items(),
        *((name, ("4", *one)) for name, one in ON_KVM.items()),
        *PLANTS.items(),
    )
    if name not in OF_1G_PAGES
}
"""Where each fault is looked for: the mode, and the cases."""


@pytest.mark.parametrize("fault", WHERE)
def test_a_fault_in_the_reference_is_found(
    bench: Bench, monkeypatch: MonkeyPatch, fault: str
) -> None:
    mode, where, plant = WHERE[fault]
    guest = bench(Model(mode)).guest
    try:
        plan = matrix.plan("quick", [mode], "bochs", guest.info, where, executor=executor(guest))
    except Misuse as error:
        pytest.skip(str(error))
    by_model = dict[Model, list[matrix.Work]]()
    for part in plan.work:
        if not part.family.model.shadow_stacks:
            by_model.setdefault(replace(part.family.model, pse=True), []).append(part)
    rigs = {model: bench(model) for model in by_model}
    plant(monkeypatch)
    assert any(
        disagrees(rigs[model], replace(plan, work=tuple(some))) for model, some in by_model.items()
    )
