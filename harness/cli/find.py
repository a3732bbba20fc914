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

        from harness.inspect import find, graph
        from harness.machine.errors import Misuse
        from harness.paging.address import Physical
        from harness.report import find as reports
        from harness.report.objects import answer

        if bool(physical) + tables + aliases != 1:
            raise Misuse("choose one: physical addresses, --tables or --aliases")
        positive(limit)
        places = [Physical(number("the physical address", text)) for text in physical or ()]
        cpu = snapshot.cpu
        most = graph.FEWER if aliases else graph.ENTRIES
        space = graph.read(snapshot.memory, cpu.format, cpu.roots, most)
        cut = space.cut
        content: dict[str, Any] = dict.fromkeys(("total", "places", "tables", "shared"))
        if tables:
            uses = list(find.tables(space))
            content["total"] = len(uses)
            content["tables"] = [reports.table_object(use) for use in uses[:limit]]
            lines = list(reports.tables_lines(uses, limit))
        elif aliases:
            shared, cut = find.shared(space)
            content["total"] = len(shared)
            content["shared"] = [reports.shared_object(one) for one in shared[:limit]]
            lines = list(reports.shared_lines(shared, limit))
        else:
            found = [find.addresses(space, place, limit) for place in places]
            content["places"] = [reports.addresses_object(cpu, one) for one in found]
            lines = [line for one in found for line in reports.addresses_lines(cpu, one)]
        if as_json:
            say(json.dumps(answer("find", snapshot, **content, cut=cut)))
        else:
            tell(snapshot, [*lines, *cut])
