"""`pagetable find`: from physical memory to the addresses that lead there."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from harness.cli.ending import sentences
from harness.cli.output import Json, say, tell
from harness.cli.pages import Limit, positive
from harness.cli.source import Source, number, with_source

SHOWN = 64
"""Addresses that are shown of each place, unless told otherwise."""


@with_source
def find(
    source: Source,
    physical: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PHYSICAL]...", help="Physical addresses.", show_default=False),
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="The tables in use, and the slots that lead to them.")
    ] = False,
    aliases: Annotated[
        bool, typer.Option("--aliases", help="The memory that is mapped more than once.")
    ] = False,
    limit: Limit = SHOWN,
    as_json: Json = False,
) -> None:
    """Find the addresses that lead to a frame; or the tables; or what is mapped twice.

    Each address is shown with the rights that it has.

    All addresses are counted, however many tables are shared, and the first are shown.

    Examples: pagetable find 0x3000000 --layout aliases; pagetable find --tables --layout self-map
    """
    with sentences(), source.opened() as snapshot:
        import json

        from harness.inspect import architecture, find, graph
        from harness.machine.errors import Misuse
        from harness.paging.address import Physical
        from harness.report import find as reports
        from harness.report.objects import answer, joined
        from harness.report.state import of_parts

        if bool(physical) + tables + aliases != 1:
            raise Misuse("choose one: physical addresses, --tables or --aliases")
        positive(limit)
        places = [Physical(number("the physical address", text)) for text in physical or ()]
        parts = architecture.parts(snapshot)
        most = graph.FEWER if aliases else graph.ENTRIES
        spaces = [graph.read(one.memory, one.cpu.format, one.cpu.roots, most) for one in parts]
        cut = tuple(sentence for one in spaces for sentence in one.cut)
        content: dict[str, Any] = dict.fromkeys(("total", "places", "tables", "shared"))
        if tables:
            uses = [list(find.tables(one)) for one in spaces]
            every = [use for some in uses for use in some]
            content["total"] = len(every)
            content["tables"] = [reports.table_object(use) for use in every[:limit]]
            lines = list(of_parts(parts, lambda n: reports.tables_lines(uses[n], limit)))
        elif aliases:
            shared, cut = find.shared(*spaces)
            content["total"] = len(shared)
            content["shared"] = [reports.shared_object(one) for one in shared[:limit]]
            lines = list(reports.shared_lines(shared, limit))
        else:
            found = [[find.addresses(one, place, limit) for place in places] for one in spaces]
            content["places"] = [
                joined([reports.addresses_object(parts[n].cpu, one) for n, one in enumerate(some)])
                for some in zip(*found, strict=True)
            ]
            lines = list(
                of_parts(
                    parts,
                    lambda n: (
                        line
                        for one in found[n]
                        for line in reports.addresses_lines(parts[n].cpu, one)
                    ),
                )
            )
        if as_json:
            say(json.dumps(answer("find", snapshot, **content, cut=cut)))
        else:
            tell(snapshot, [*lines, *cut])
