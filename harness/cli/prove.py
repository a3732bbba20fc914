"""`pagetable prove`: the tables of any program, proved on the machine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.architectures import USUAL
from harness.cli.ending import DISAGREEMENT, MISUSE, complain, sentences, tell_news
from harness.cli.engine import AllowNews, Bochs, Engine, Qemu, programs, usable
from harness.cli.help import OUTPUT
from harness.cli.output import Json, say, show, writable, write
from harness.cli.source import Source, with_source
from harness.cli.witnesses import answers_of_all

if TYPE_CHECKING:
    from harness.inspect.prove import Proved
    from harness.inspect.snapshot import Snapshot


@with_source
def prove(
    source: Source,
    context: typer.Context,
    expect: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the tables are meant to say, in TOML: harness/inspect/README.md has its"
            " keys.",
            show_default=False,
        ),
    ] = None,
    engine: Engine = "auto",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="malformed or unbacked: entries with reserved bits set, or in tables outside"
            " memory, are meant. May be given twice.",
            show_default=False,
        ),
    ] = None,
    qemu: Qemu = "qemu-system-x86_64",
    bochs: Bochs = "bochs",
    as_json: Json = False,
    junit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write JUnit XML.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    allow_news: AllowNews = False,
) -> None:
    """Prove the tables of any program on a machine, and that they say what was meant.

    They are put into a guest's memory where they are, all that they map is accessed there, and the
    answers are compared with the rules; with --expect the tables with what was meant. Tables that
    cannot be where they are, beyond 3G (2G on bochs) or where a PC has devices, are left out, and
    each is named.
    What else the program has in its memory plays no part. Tables of one moment do not show whether
    a flush is missing.

    Exit codes: 0 all agree and are as expected, 1 a disagreement or an expectation that is not met,
    2 misuse or nothing to prove, 3 the machine failed, 4 a known quirk did not show.

    Example: pagetable prove --ram ram.bin@0x2000000 --cr3 0x2000000 --expect kernel.toml
    """
    with sentences():
        from harness.check.fixtures import registers
        from harness.inspect.expect import load
        from harness.inspect.prove import prove as proof
        from harness.inspect.prove import prover_of
        from harness.machine.errors import Misuse
        from harness.report import check
        from harness.report import prove as reports
        from harness.report.impassable import IMPASSABLE

        started = time.monotonic()
        writable(junit)
        kinds = allow or []
        if unknown := sorted(set(kinds) - set(IMPASSABLE)):
            known = " and ".join(IMPASSABLE)
            raise Misuse(f"there is no {unknown[0]!r} to allow, but {known}")
        with source.opened(accesses=expect is not None) as snapshot:
            arch = snapshot.cpu.architecture
            prover_of(snapshot)
            meant = None if expect is None else load(expect, arch)
            chosen = programs(qemu, bochs, arch, None if arch == USUAL else context)
            proved = proof(snapshot, *usable(engine, chosen, arch), meant)
            if not as_json:
                reports.show(proved, kinds)
            proved, interrupted = _everyone_asked(proved, snapshot, chosen)
            if as_json:
                say(json.dumps(reports.as_object(proved, kinds)))
            else:
                for line in check.answers_of_all(proved.checked):
                    show(line)
            if interrupted is not None:
                raise interrupted
            if junit is not None:
                write(junit, reports.as_junit(proved, kinds, time.monotonic() - started))
            failed = reports.failed(proved, kinds)
        if failed:
            raise typer.Exit(DISAGREEMENT)
        if not proved.mapped:
            complain(
                "nothing was proved: all that the tables map is left out."
                if proved.left_out
                else "nothing is mapped, so nothing was proved:"
                f" {' or '.join(registers(snapshot.cpu))} may be wrong, or the memory."
            )
            raise typer.Exit(MISUSE)
        tell_news(check.total(proved.checked, "news"), allow_news)


def _everyone_asked(
    proved: Proved, snapshot: Snapshot, chosen: Mapping[str, str]
) -> tuple[Proved, KeyboardInterrupt | None]:
    """The proof with what every engine says of its first disagreements, and the interruption if not
    all were asked."""
    from harness.check.compare import EXAMPLES
    from harness.inspect.prove import ask_every

    found = proved.checked.disagreements[:EXAMPLES]
    ask = partial(ask_every, snapshot, found)
    answers, interrupted = answers_of_all(len(found), ask, chosen, snapshot.cpu.architecture)
    return replace(proved, checked=replace(proved.checked, answers=answers)), interrupted
