"""Runs the stress of Linux many times: as it is, where no use may be late, and with its INVLPG
overwritten, where some must be, with tables that are not isolated: else each way into the kernel
loads CR3, which flushes.

    python -m tests.flushes [RUNS]

The environment's QEMU is used.  The exit code is 1 where a run is not as it should be.
"""

from __future__ import annotations

import itertools
import os
import sys

from harness.machine.errors import MachineError
from images.linux.machine import Variant
from tests.flushes.linux import stressed

OPERATIONS = 1000
WAYS = [
    (levels, isolated, cpus) for levels in (4, 5) for isolated in (True, False) for cpus in (2, 1)
]


def main(runs: int) -> int:
    qemu = os.environ.get("QEMU", "qemu-system-x86_64")
    wrong = 0
    for patched in (False, True):
        for number, (levels, isolated, cpus) in zip(
            range(runs), itertools.cycle(WAYS), strict=False
        ):
            variant = Variant(levels, isolated and not patched)
            what = f"{number + 1} {variant}, {cpus} processors{', no INVLPG' if patched else ''}"
            try:
                run = stressed(
                    qemu, variant, operations=OPERATIONS, processors=cpus, patched=patched
                )
            except MachineError as error:
                print(f"{what}: {error}", flush=True)
                wrong += 1
                continue
            totals, late = run.flushes.totals, run.late()
            good = run.passed and bool(late) == patched
            wrong += not good
            if not run.passed:
                watched = run.flushes.watched
                print(f"{what}: {watched.ending}, {watched.exit_code}: {run.console}", flush=True)
            worst = ", ".join(f"{name} {count:,}" for name, count in sorted(late.items()))
            print(
                f"{what}: {'as it should be' if good else 'WRONG'}; {totals['narrowed']:,} changes,"
                f" {totals['uses']:,} stale uses, {totals['late']:,} late {worst}",
                flush=True,
            )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 10))
