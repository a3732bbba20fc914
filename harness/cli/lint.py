"""`pagetable lint`: what is odd about a space."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import complete
from harness.cli.ending import DISAGREEMENT, sentences
from harness.cli.output import Json, say, tell
from harness.cli.pages import Limit, Pat, positive, types_of
from harness.cli.source import Source, with_source

SHOWN = 10
"""Findings of a rule that are shown, unless told otherwise."""


@with_source
def lint(
    source: Source,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Leave a rule out; may be given several times.",
            autocompletion=complete.lint_rules,
        ),
    ] = None,
    limit: Limit = SHOWN,
    pat: Pat = None,
    as_json: Json = False,
) -> None:
    """Report what is odd about a space.

    Reserved bits, pages that are writable and executable, user access to the upper half, memory
    mapped with several types, tables that can be reached as data, empty tables, pages outside
    memory, rights that tables above withhold, and more. Of a guest or core also what its processor
    needs: code, stack, GDT, IDT, TSS, and the stacks and handlers that these name.

    An error is what faults or is undefined, or lets user code change tables; a warning is legal
    and seldom meant; a note is legal and common.  Each rule says how many entries break it, at
    all their addresses.

    Exit codes: 0 nothing, or notes alone; 1 an error or a warning; 2 misuse.

    Example: pagetable lint --layout malformed --ignore write-execute
    """
    with sentences(), source.opened(stack=True) as snapshot:
        import json

        from harness.inspect import architecture, lint
        from harness.report import lint as reports
        from harness.report.objects import answer

        positive(limit)
        types = types_of(snapshot.cpu, pat)
        manual = architecture.of(snapshot.cpu).manual
        broken, cut = lint.lint(snapshot, types, ignore or (), limit)
        if as_json:
            content = reports.lint_object(types, broken, cut)
            say(json.dumps(answer("lint", snapshot, **content)))
        else:
            tell(snapshot, reports.lint_lines(broken, cut, manual, snapshot))
        if any(one.rule.severity is not lint.Severity.NOTE for one in broken):
            raise typer.Exit(DISAGREEMENT)
