"""`pagetable flushes`: the missing flushes of any guest, found while it runs in QEMU."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from harness.cli.complete import one_of
from harness.cli.ending import DISAGREEMENT, MACHINE_FAILURE, MISUSE, complain, sentences
from harness.cli.help import OUTPUT
from harness.cli.output import Json, make_folder, say, show

BETWEEN = 10.0
"""Seconds from one line of progress to the next."""


def flushes(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- QEMU ARGS...",
            help="The command that starts your guest: QEMU for x86 or RISC-V, with TCG.",
            show_default=False,
        ),
    ],
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Which uses are a failure: late, or stale, which a later flush may excuse.",
            autocompletion=one_of("late", "stale"),
        ),
    ] = "late",
    symbols: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Names of the kernel's functions: its ELF file, System.map or kallsyms."
            " Boot it with nokaslr, so that it runs where they say.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="End QEMU after this time.", min=0.1, show_default=False
        ),
    ] = None,
    deadline: Annotated[
        int,
        typer.Option(
            metavar="BLOCKS",
            help="Blocks of instructions that a kernel may execute between a change and its flush"
            " without going back to user mode.",
            min=1,
        ),
    ] = 20_000_000,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write flushes.txt and flushes.json there.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the flushes that a guest's kernel forgets, while it runs unmodified in QEMU.

    Starts your QEMU with a plugin that follows every change of the page tables, every flush and
    every access.  Reported is a use of a translation that was cached before a change took it away,
    once the thread that made the change is back in user mode, or past the deadline: who changed
    which entry, who used the old translation, and what flushed it in the end.

    It ends when QEMU does, after --limit, or at Ctrl-C or SIGTERM.  TCG alone, two to
    three times slower.

    Exit codes: 0 no such use, 1 a flush is missing, 2 misuse, 3 QEMU failed.

    Example: pagetable flushes --symbols vmlinux -- qemu-system-x86_64 -kernel bzImage -nographic
    """
    with sentences():
        import json

        from harness.check import written
        from harness.check.flushes import FailOn, architecture_of
        from harness.check.flushes import flushes as judged
        from harness.inspect.symbols import symbols as read_symbols
        from harness.machine.errors import Misuse
        from harness.machine.plugin import watched
        from harness.report import flushes as reported
        from harness.report.visible import visible_lines

        if fail_on not in [one.value for one in FailOn]:
            raise Misuse(f"there is no {fail_on!r} to fail on: choose late or stale")
        on = FailOn(fail_on)
        arch = architecture_of(command)
        names = None if symbols is None else read_symbols(symbols)
        make_folder(report)
        with _sigterm_as_ctrl_c():
            seen = watched(
                command,
                limit=limit,
                deadline=deadline,
                arch=arch,
                stdout=2 if as_json else None,
                progress=_progress(),
            )
        found = judged(arch, seen)
        if report is not None:
            text = "\n".join(reported.lines(found, on, names))
            written.write(report / "flushes.txt", visible_lines(text) + "\n")
            whole = json.dumps(reported.as_object(found, on, names))
            written.write(report / "flushes.json", whole + "\n")
        if as_json:
            say(json.dumps(reported.as_object(found, on, names)))
        else:
            show("\n".join(reported.lines(found, on, names)))
        wrong = found.failed or found.unwatched
        if wrong and as_json:
            complain(wrong)
        if wrong:
            raise typer.Exit(MACHINE_FAILURE if found.failed else MISUSE)
        if found.failing(on):
            raise typer.Exit(DISAGREEMENT)


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Has SIGTERM bring the report too, once: `timeout` sends it twice."""

    def interrupt(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress() -> Callable[[float, Mapping[str, int]], None]:
    """Says now and then, on stderr, what was seen so far."""
    from harness.report.text import counted

    said = 0.0

    def tell(seconds: float, totals: Mapping[str, int]) -> None:
        nonlocal said
        if seconds - said < BETWEEN:
            return
        said = seconds
        flushed = totals["invlpg"] + totals["mov_cr3"] + totals["control"]
        complain(
            f"{seconds:.0f} s: {counted(totals['narrowed'], 'change')},"
            f" {counted(flushed, 'flush')}, {counted(totals['uses'], 'stale use')},"
            f" {totals['late']:,} of them late"
        )

    return tell
