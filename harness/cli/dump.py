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
    chosen_in,
    one_format,
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

    Rights are the effective ones of all levels together, as letters: u for user, r, w, x.  Where
    the page's own entry says otherwise, that is shown too.  A and D say how many pages have been
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
        from itertools import repeat

        from harness.inspect import architecture, ranges
        from harness.machine.errors import Misuse
        from harness.report.objects import answer, joined
        from harness.report.ranges import dump_csv, dump_lines, dump_object, notes, typed
        from harness.report.state import of_parts

        if as_json and as_csv:
            raise Misuse("both --json and --csv: choose one")
        positive(limit)
        writable(html)
        types, parts = types_of(snapshot.cpu, pat), architecture.parts(snapshot)
        chosen = chosen_in(parts, types, where, user)
        found = [
            ranges.dump(
                one.memory,
                one.cpu.format,
                one.cpu.roots,
                span=span_of(within),
                chosen=wanted,
                exact=exact,
                each=limit if expand else None,
            )
            for one, wanted in zip(parts, chosen, strict=True)
        ]
        cpus = [one.cpu for one in parts]
        said = architecture.of(snapshot.cpu).memory_types.ASSUMED
        if pat is None and said and any(map(typed, cpus, found)):
            snapshot = replace(snapshot, assumed=(*snapshot.assumed, said))
        if html is not None:
            from harness.report.html.space import space_page

            one_format(parts, "--html")
            write(html, space_page(snapshot, types, found[0], limit))
        if as_json:
            content = joined([dump_object(*one, limit) for one in zip(cpus, repeat(types), found)])
            say(json.dumps(answer("dump", snapshot, **content)))
        elif as_csv:
            for number, one in enumerate(found):
                text = dump_csv(cpus[number], types, one, limit)
                say(text if not number else text.partition("\n")[2], nl=False)
                for sentence in notes(one, limit):
                    complain(sentence)
        else:
            told = narrow()
            tell(
                snapshot,
                of_parts(parts, lambda n: dump_lines(cpus[n], types, found[n], limit, told)),
            )
