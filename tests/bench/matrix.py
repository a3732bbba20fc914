"""The matrix, end to end: from the declared cases through the guest to the verdicts."""

from __future__ import annotations

import os
from collections.abc import Iterator

from harness.check import matrix
from harness.check.matrix import Plan
from harness.check.rig import Rig, guest_of
from harness.check.stage import MODES, Control, Model
from harness.machine.engines import executor
from harness.machine.guest import Guest
from tests.bench.measure import Figure, rate

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
IDLE = 1 << 20


def figures() -> Iterator[Figure]:
    """verified_per_s, verified_jobs2_per_s."""
    model = Model("4")
    with guest_of("tcg", model.guest, QEMU) as guest:
        plan = matrix.plan("quick", MODES, "tcg", guest.info, executor=executor(guest))
        yield verified("verified_per_s", plan, 1, guest, model)
        yield verified("verified_jobs2_per_s", plan, 2, guest, model)


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
