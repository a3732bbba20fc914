"""`pagetable walk`: an address, step by step."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.ending import sentences
from harness.cli.source import Source, number, with_source


@with_source
def walk(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A virtual address.")],
    source: Source,
) -> None:
    """Show how an address is translated, step by step.

    Example: pagetable walk 0x1000 --layout smallest
    """
    with sentences(), source.opened() as snapshot:
        from harness.machine.errors import Misuse
        from harness.paging import walk as walks
        from harness.paging.address import Virtual
        from harness.paging.x86.cpu import root_for
        from harness.report.text import walk_lines

        at = Virtual(number("the address", address))
        root = root_for(snapshot.cpu, at)
        if root is None:
            raise Misuse(f"{at:#x} is not canonical")
        for line in walk_lines(walks.walk(snapshot.memory, root, at)):
            typer.echo(line)
