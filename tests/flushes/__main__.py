"""Runs the stress of Linux many times, of x86 and then of RISC-V: as it is, where no use may be
late; without its INVLPG, or its fences of ranges, where some must be; and on x86 on two processors
without having the other one flush, likewise.  The last two of x86 are with tables that are not
isolated: else each way into the kernel loads CR3, which flushes.

    python -m tests.flushes [RUNS]

The environment's QEMU and QEMU_RISCV are used.  The exit code is 1 where a run is not as it should
be.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from functools import partial

from harness.machine.errors import MachineError
from images.linux.machine import RiscvVariant, Variant
from tests.flushes.linux import (
    Stressed,
    stressed,
    without_invlpg,
    without_range_fences,
    without_shootdown,
)
from tests.machine.riscv.present import program, why_absent

OPERATIONS = 1000
WAYS = [
    (levels, isolated, cpus) for levels in (4, 5) for isolated in (True, False) for cpus in (2, 1)
]


def main(runs: int) -> int:
    qemu = os.environ.get("QEMU", "qemu-system-x86_64")
    ways = [*itertools.islice(itertools.cycle(WAYS), runs)]
    asis = [watch(qemu, Variant(levels, isolated), cpus) for levels, isolated, cpus in ways]
    flat = [(Variant(levels, isolated=False), cpus) for levels, _, cpus in ways]
    changed = [watch(qemu, variant, cpus, "no INVLPG", without_invlpg) for variant, cpus in flat]
    names = next((run.symbols for run in asis if run is not None), None)
    if names is not None:
        change = partial(without_shootdown, names=names)
        changed += [
            watch(qemu, variant, 2, "no shootdown", change)
            for variant in dict.fromkeys(variant for variant, _ in flat)
        ]
    return 0 if all([*asis, *changed, *on_riscv(runs)]) else 1


def on_riscv(runs: int) -> list[Stressed | None]:
    """Likewise, but for having no other hart flush: where there are two, OpenSBI flushes for both,
    and one alone is without its fences of ranges."""
    if reason := why_absent(64):
        print(f"no Linux for RISC-V: {reason}", flush=True)
        return []
    qemu, variants = program(64), [RiscvVariant(levels) for levels in (3, 4, 5)]
    ways = [*itertools.islice(itertools.cycle(itertools.product((2, 1), variants)), runs)]
    return [
        *(watch(qemu, variant, harts) for harts, variant in ways),
        *(
            watch(qemu, variant, 1, "no fences of ranges", without_range_fences)
            for variant in dict.fromkeys(variant for _, variant in ways)
        ),
    ]


def watch(
    qemu: str,
    variant: Variant | RiscvVariant,
    cpus: int,
    without: str = "",
    change: Callable[[bytes], bytes] | None = None,
) -> Stressed | None:
    """A run, and a line about it; None where it is not as it should be."""
    what = f"{variant}, {cpus} processors{', ' if without else ''}{without}"
    try:
        run = stressed(qemu, variant, operations=OPERATIONS, processors=cpus, change=change)
    except MachineError as error:
        print(f"{what}: {error}", flush=True)
        return None
    totals, late = run.flushes.totals, run.late()
    good = run.passed and bool(late) == bool(without)
    if not run.passed:
        watched = run.flushes.watched
        print(f"{what}: {watched.ending}, {watched.exit_code}: {run.console}", flush=True)
    worst = ", ".join(f"{name} {count:,}" for name, count in sorted(late.items()))
    print(
        f"{what}: {'as it should be' if good else 'WRONG'}; {totals['narrowed']:,} changes,"
        f" {totals['uses']:,} stale uses, {totals['late']:,} late {worst}",
        flush=True,
    )
    return run if good else None


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 10))
