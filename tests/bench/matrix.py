"""The matrix, end to end: from the declared cases through the guest to the verdicts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from harness.check.x86.matrix import chain as chains
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.families import code_places, lanes, rights
from harness.check.x86.matrix.rig import Rig, guest_of
from harness.check.x86.matrix.run import Plan
from harness.check.x86.matrix.stage import MODES, Control, Model
from harness.machine.x86.engines import executor, why_absent
from harness.machine.x86.guest import Guest, State
from tests.bench.measure import Figure, cpu_seconds, in_turn, rate, seconds

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
BOCHS = os.environ.get("BOCHS", "bochs")
IDLE = 1 << 20


def figures() -> Iterator[Figure]:
    """verified_per_s, verified_jobs2_per_s, bochs_probes_per_s, bochs_batch_ms, bochs_boot_ms."""
    model = Model("4")
    with guest_of("tcg", model.guest, QEMU) as guest:
        plan = matrix.plan("quick", MODES, "tcg", guest.info, executor=executor(guest))
        yield verified("verified_per_s", plan, 1, guest, model)
        yield verified("verified_jobs2_per_s", plan, 2, guest, model)
        if why_absent("bochs", program=BOCHS) is None:
            yield from on_bochs(guest)


def on_bochs(beside: Guest) -> Iterator[Figure]:
    """Accesses of the matrix executed by Bochs a CPU second of it, a batch of one of them, and the
    start of its guest; beside the same with TCG."""
    model = Model("4")
    with guest_of("bochs", model.guest, BOCHS) as guest:
        both = (guest, beside)
        asks = [asked(one, model) for one in both]
        count = len(asks[0][1])
        runs = [partial(one.run, *ask) for one, ask in zip(both, asks, strict=True)]
        clocks = partial(cpu_seconds, guest.pid), partial(cpu_seconds, beside.pid)
        yield rate(
            "bochs_probes_per_s",
            count,
            runs[0],
            f"{count:,} by TCG",
            runs[1],
            stopwatches=clocks,
        )
        single = [
            partial(seconds, partial(one.run, state, jobs[:1].copy()))
            for one, (state, jobs) in zip(both, asks, strict=True)
        ]
        yield in_turn("bochs_batch_ms", single[0], "one by TCG", single[1])
    starts = [partial(start, *one, model) for one in (("bochs", BOCHS), ("tcg", QEMU))]
    yield in_turn("bochs_boot_ms", starts[0], "TCG's", starts[1])


def start(engine: str, program: str, model: Model) -> float:
    """Seconds until a guest of the matrix is ready, which is then ended."""
    guests: list[Guest] = []
    took = seconds(lambda: guests.append(guest_of(engine, model.guest, program)))
    guests[0].close()
    return took


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
