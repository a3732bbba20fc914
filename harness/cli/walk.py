"""`pagetable walk`: an address, step by step."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.ending import sentences
from harness.cli.source import Source, number, with_source


@with_source
def walk(
    addresses: Annotated[
        list[str], typer.Argument(metavar="ADDRESS...", help="Virtual addresses.")
    ],
    source: Source,
    linux: Annotated[
        bool, typer.Option("--linux", help="Also tell what Linux keeps in the entries.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how addresses are translated: the indices they split into, every entry on the way with
    the rights that are left after it, the page, or why there is none.

    Example: pagetable walk 0x1000 --layout smallest
    """
    with sentences(), source.opened() as snapshot:
        import json

        from harness.inspect.translation import translate
        from harness.machine.errors import Misuse
        from harness.paging.address import Virtual
        from harness.report.objects import answer
        from harness.report.text import assumed_lines
        from harness.report.translation import as_object, translation_lines

        try:
            asked = [Virtual(number("the address", text)) for text in addresses]
            found = [translate(snapshot, address, linux) for address in asked]
        except ValueError as error:
            raise Misuse(str(error)) from None
        format = snapshot.cpu.format
        if as_json:
            walks = [as_object(format, one) for one in found]
            typer.echo(json.dumps(answer("walk", snapshot, walks=walks), indent=2))
            return
        typer.echo(snapshot.title)
        for one in found:
            typer.echo("")
            for line in translation_lines(format, one):
                typer.echo(line)
        for line in assumed_lines(snapshot.assumed):
            typer.echo(line)
