"""The matrix, end to end: from the declared cases through the guest to the verdicts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from harness.check import chain as chains
from harness.check import matrix
from harness.check.families import code_places, lanes, rights
from harness.check.matrix import Plan
from harness.check.rig import Rig, guest_of
from harness.check.stage import MODES, Control, Model
from harness.machine.engines import executor, why_absent
from harness.machine.guest import Guest, State
from tests.bench.measure import Figure, rate

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
BOCHS = os.environ.get("BOCHS", "bochs")
IDLE = 1 << 20


def figures() -> Iterator[Figure]:
    """verified_per_s, verified_jobs2_per_s, bochs_probes_per_s."""
    model = Model("4")
    with guest_of("tcg", model.guest, QEMU) as guest:
        plan = matrix.plan("quick", MODES, "tcg", guest.info, executor=executor(guest))
        yield verified("verified_per_s", plan, 1, guest, model)
        yield verified("verified_jobs2_per_s", plan, 2, guest, model)
        if why_absent("bochs", program=BOCHS) is None:
            yield on_bochs(guest)


def on_bochs(beside: Guest) -> Figure:
    """Accesses of the matrix, executed by Bochs; beside the same by TCG."""
    model = Model("4")
    with guest_of("bochs", model.guest, BOCHS) as guest:
        some = [asked(one, model) for one in (guest, beside)]
        count = len(some[0][1])
        runs = [
            partial(one.run, *question) for one, question in zip((guest, beside), some, strict=True)
        ]
        return rate("bochs_probes_per_s", count, runs[0], f"{count:,} by TCG", runs[1])


def asked(guest: Guest, model: Model) -> tuple[State, npt.NDArray[np.void]]:
    """Accesses of one family, with every right in every entry, under one control state."""
    chain = Rig(guest).chain(model)
    family = next(rights(model, (Control(),)))
    chain.put_code(*code_places(family))
    numbers = np.arange(0, np.prod(family.product.shape), 3)
    jobs = chains.ask(guest, chain, lanes(family, chain, numbers)).jobs
    return chain.state(model.cpu(Control(), chain.cpu)), jobs


def verified(name: str, plan: Plan, jobs: int, guest: Guest, model: Model) -> Figure:
    """The quick preset in all modes, the start of its guests included."""
    chain = Rig(guest).chain(model)
    state = chain.state(model.cpu(Control(), chain.cpu))
    idle = guest.image.new_jobs(IDLE)

    def run() -> None:
        for part in matrix.run(plan, jobs=jobs, program=QEMU):
            assert not part.comparison.disagreed

    beside = f"{IDLE:,} jobs that do nothing"
    return rate(name, len(plan), run, beside, lambda: guest.run(state, idle))
