"""`pagetable check`: a foreign guest's own tables, compared with what its QEMU makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.ending import DISAGREEMENT, MISUSE, complain, say_warnings, sentences
from harness.cli.output import Json, say


def check(
    qmp: Annotated[
        Path | None,
        typer.Option(
            metavar="SOCKET",
            help="A running QEMU, by its QMP socket, a path or HOST:PORT.",
            show_default=False,
        ),
    ] = None,
    gdb: Annotated[
        Path | None,
        typer.Option(
            metavar="SOCKET",
            help="The same by its gdb stub (-s, -gdb).",
            show_default=False,
        ),
    ] = None,
    held: Annotated[
        bool, typer.Option("--held", help="The guest of --gdb stood before, and is left so.")
    ] = False,
    vcpu: Annotated[int, typer.Option(metavar="N", help="Which processor of the guest.")] = 0,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Ask about all mappings, not a sample.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the tables of a running guest with what its own QEMU makes of them.

    QEMU prints all that is mapped (info tlb), which is compared row by row in both directions, and
    translates a sample of addresses (gva2gpa), those beside each mapping among them.  Where the
    guest's memory is shared with us, it is read both ways.  The guest stands still meanwhile, and
    runs again in every case.

    Exit codes: 0 all agree, 1 a disagreement, 2 misuse, 3 QEMU failed.

    Example: pagetable check --qmp guest.sock
    """
    with sentences():
        import json

        from harness.inspect.check import check
        from harness.machine.errors import Misuse
        from harness.report.check import as_object, compared, disagreed, show

        say_warnings()
        asked = gdb if qmp is None else qmp
        if asked is None or (qmp and gdb):
            raise Misuse("name one running QEMU: --qmp SOCKET or --gdb SOCKET")
        checked = check(asked, vcpu, thorough, stub=qmp is None, held=held)
        if as_json:
            say(json.dumps(as_object(checked)))
        else:
            show(checked)
        if disagreed(checked):
            raise typer.Exit(DISAGREEMENT)
        if not compared(checked):
            complain("nothing was compared: the space maps nothing that could be.")
            raise typer.Exit(MISUSE)
