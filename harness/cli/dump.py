"""`pagetable dump`: all that a space holds."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.ending import complain, sentences
from harness.cli.help import OUTPUT
from harness.cli.output import Html, Json, narrow, say, tell, writable, write
from harness.cli.pages import (
    LIMIT,
    Limit,
    Pat,
    User,
    Where,
    Within,
    chosen_of,
    positive,
    span_of,
    types_of,
)
from harness.cli.source import Source, with_source


@with_source
def dump(
    source: Source,
    where: Where = None,
    within: Within = None,
    user: User = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Merge only what differs in nothing but the frames, which follow."
        ),
    ] = False,
    expand: Annotated[
        bool, typer.Option("--expand", help="Fold nothing: every page at all its addresses.")
    ] = False,
    limit: Limit = LIMIT,
    pat: Pat = None,
    as_json: Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a table for programs.", rich_help_panel=OUTPUT)
    ] = False,
    html: Html = None,
) -> None:
    """Show what is mapped, with which rights.

    Neighbours that say the same are one range, and a shared table is shown once, with the number
    of addresses at which its pages are.

    Rights are those that all levels grant together, as letters: u for user, r, w, x.  Where the
    page's own entry says otherwise, that is shown too.  A and D say how many pages have been
    accessed and written.  Shared tables are folded for each set of rights with which they are
    reached, and a self-map (a slot that leads back up) is one line.  Malformed entries and tables
    without memory have lines of their own.  Nothing else is left out; a result that a limit cut
    says so.

    Example: pagetable dump --layout linux-5 --where 'w and x and not user'

    Example: pagetable dump --layout linux-5 --html space.html
    """
    with sentences(), source.opened() as snapshot:
        import json
        from dataclasses import replace

        from harness.inspect import architecture, ranges
        from harness.machine.errors import Misuse
        from harness.report.objects import answer
        from harness.report.ranges import dump_csv, dump_lines, dump_object, notes, typed

        if as_json and as_csv:
            raise Misuse("both --json and --csv: choose one")
        positive(limit)
        writable(html)
        cpu, types = snapshot.cpu, types_of(snapshot.cpu, pat)
        found = ranges.dump(
            snapshot.memory,
            cpu.format,
            cpu.roots,
            span=span_of(within),
            chosen=chosen_of(cpu, types, where, user),
            exact=exact,
            each=limit if expand else None,
        )
        said = architecture.of(cpu).memory_types.ASSUMED
        if pat is None and said and typed(cpu, found):
            snapshot = replace(snapshot, assumed=(*snapshot.assumed, said))
        if html is not None:
            from harness.report.html.space import space_page

            write(html, space_page(snapshot, types, found, limit))
        if as_json:
            content = dump_object(cpu, types, found, limit)
            say(json.dumps(answer("dump", snapshot, **content)))
        elif as_csv:
            say(dump_csv(cpu, types, found, limit), nl=False)
            for sentence in notes(found, limit):
                complain(sentence)
        else:
            tell(snapshot, dump_lines(cpu, types, found, limit, narrow()))
