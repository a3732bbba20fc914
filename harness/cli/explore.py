"""`pagetable explore`: tables in the terminal, moved through by keys."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from harness.cli.ending import sentences
from harness.cli.source import Source, number, with_source

INCAPABLE = ("", "dumb", "unknown")
"""What TERM says of terminals that write line after line, or are not known."""


@with_source
def explore(
    source: Source,
    address: Annotated[
        str | None,
        typer.Argument(metavar="[ADDRESS]", help="Where to begin; by default in the root's table."),
    ] = None,
) -> None:
    """Move through tables in the terminal, by keys.

    It shows each slot with what it says, and every bit of the chosen one.

    Arrows choose a slot, Enter follows a pointer and Backspace leads back, u goes to the table
    above, g to an address, n and p to the next and the previous entry that is not absent; ? shows
    the others.  Tables are read when they are entered.

    Example: pagetable explore --layout linux-5
    """
    with sentences(), source.opened() as snapshot:
        from harness.cli.pages import one_format
        from harness.inspect import architecture
        from harness.machine.errors import Misuse
        from harness.paging.address import Virtual

        at = None if address is None else Virtual(number("the address", address))
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise Misuse("explore needs a terminal: walk and dump print the same")
        if (kind := os.environ.get("TERM", "")) in INCAPABLE:
            raise Misuse(
                f"explore needs a terminal that places what it shows, and TERM is {kind!r}: walk"
                " and dump print the same"
            )
        if not snapshot.cpu.roots:
            raise Misuse("nothing is translated: no table is where a walk could begin")
        parts = architecture.parts(snapshot)
        shown = {root.table.format for root in snapshot.cpu.roots}
        if not {one.cpu.format for one in parts} <= shown:
            one_format(parts, "explore")
        from harness.report.explorer import Explorer

        tour = Explorer(snapshot, at)
        tour.run()
        if tour.failure is not None:
            raise tour.failure
