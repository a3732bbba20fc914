"""What commands do with `--arch riscv`."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.cli.ending import CASES, DISAGREEMENT, MACHINE_FAILURE, complain, kept, tell_news
from harness.cli.output import say

if TYPE_CHECKING:
    from harness.check.riscv.matrix.run import Plan, Report
    from harness.report.riscv.matrix import Result


def matrix(
    *,
    preset: str,
    mode: str,
    engine: str,
    where: str | None,
    jobs: int,
    program: str,
    as_json: bool,
    report: Path | None,
    allow_news: bool,
) -> None:
    """Tries RISC-V's matrix, prints what came of it, and ends with the exit code it deserves.

    program  the QEMU for RISC-V of 64 bits; that for 32 lies beside it
    """
    from harness.check import written
    from harness.check.riscv.matrix.families import PRESETS
    from harness.check.riscv.matrix.hart import MODES
    from harness.check.riscv.matrix.run import plan
    from harness.machine.errors import Misuse
    from harness.report.riscv import matrix as reports
    from harness.report.text import counted

    if preset not in PRESETS:
        raise Misuse(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    if mode not in (*MODES, "all"):
        raise Misuse(f"RISC-V has no mode {mode!r}: choose one of {', '.join(MODES)}, or all")
    if engine not in ("auto", reports.ENGINE):
        raise Misuse(f"{engine} runs no RISC-V: choose {reports.ENGINE}")
    started = time.monotonic()
    modes = MODES if mode == "all" else (mode,)
    planned = plan(preset, modes, program, where)
    if not as_json:
        say(f"{counted(len(planned), 'access')} on {reports.ENGINE}")
    result = _tried(planned, jobs, started, report or CASES)
    text = json.dumps(reports.as_object(result))
    if report is not None:
        written.write(report / "report.json", text + "\n")
    if as_json:
        say(text)
    else:
        reports.show(result)
    if result.failure is not None:
        complain(result.failure)
        raise typer.Exit(MACHINE_FAILURE)
    if result.report.disagreed:
        raise typer.Exit(DISAGREEMENT)
    tell_news(result.report.news, allow_news)


def _tried(planned: Plan, jobs: int, started: float, directory: Path) -> Result:
    """Tries a plan, and keeps in the directory what tells against the machine."""
    from harness.check.riscv.matrix.run import Report, run
    from harness.machine.errors import MachineError
    from harness.report.riscv.matrix import Result
    from harness.report.terminal import following

    total, failure = Report(), None
    try:
        with closing(run(planned, jobs=jobs)) as coming:
            for part in following(coming, len(planned), _step):
                total.add(part)
    except MachineError as error:
        failure = kept(error, directory)
    return Result(planned, total, time.monotonic() - started, failure)


def _step(part: Report) -> tuple[int, str]:
    return part.compared, "disagreements" if part.disagreed else "accesses"
