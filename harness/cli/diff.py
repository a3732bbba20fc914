"""`pagetable diff`: what is different between two spaces, or two moments of one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.complete import sources as offered
from harness.cli.ending import DISAGREEMENT, sentences
from harness.cli.output import Json, say, show
from harness.cli.pages import Limit, Pat, positive, types_of
from harness.cli.source import Source

if TYPE_CHECKING:
    from harness.inspect.graph import Graph
    from harness.inspect.snapshot import Snapshot

SHOWN = 1000
"""Ranges that are shown, unless told otherwise."""


def diff(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A source in one word: KIND:NAME[,OPTION=VALUE].",
            autocompletion=offered,
        ),
    ],
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            help="Another; A again, later, where there is none.",
            autocompletion=offered,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--after", metavar="SECONDS", help="Look at B so much later than at A."),
    ] = None,
    limit: Limit = SHOWN,
    pat: Pat = None,
    as_json: Json = False,
) -> None:
    """Show what is different between two spaces, or between two moments of one.

    That is what is mapped, unmapped or moved, has other rights, or has been accessed or written.

    A source in one word is layout:NAME (layout:NAME@5 at five levels), qmp:SOCKET, core:FILE,
    case:FILE or ram:FILE,cr3=N; options of other commands follow after commas (qmp:SOCKET,vcpu=1).
    What counts is what addresses lead to: a table that was moved, or a large page that was split,
    changes nothing for the pages below but their size.  A guest runs on between two looks, and may
    change its root: ,cr3=N keeps to one space.

    Exit codes: 0 the same, 1 different or not wholly compared, 2 misuse.

    Examples: pagetable diff layout:linux-4 layout:aliases@4;
              pagetable diff qmp:/tmp/qmp.sock --after 2
    """
    with sentences():
        import json

        from harness.inspect import architecture
        from harness.inspect.diff import diff
        from harness.machine.errors import Misuse
        from harness.report import diff as reports
        from harness.report.objects import bare, joined, looked_at
        from harness.report.state import of_parts
        from harness.report.text import assumed_lines

        positive(limit)
        if after is None and seconds is None:
            raise Misuse("one source, and one moment: name another source, or --after SECONDS")
        if seconds is not None and not 0 <= seconds <= DAY:
            raise Misuse(f"--after {seconds:g} is no time to wait: 0 to {DAY:,} seconds")
        sources = [Source.named(before), Source.named(after or before)]
        some, first = _looked_at(sources[0])
        time.sleep(seconds or 0)
        others, second = _looked_at(sources[1])
        if some.cpu.architecture != others.cpu.architecture:
            named = (architecture.of(one.cpu).called for one in (some, others))
            raise Misuse(
                f"the tables are of {' and '.join(named)}: compare two of one architecture"
            )
        types = types_of(some.cpu, pat)
        sides = [architecture.parts(one) for one in (some, others)]
        if [_split(one) for one in first] != [_split(one) for one in second]:
            sides = [architecture.apart(one) for one in (some, others)]
            first, second = ([_read(one) for one in side] for side in sides)
        if len(first) != len(second):
            raise Misuse(
                "the tables of one have several formats, and of the other one: compare those alike"
            )
        found = [diff(*pair) for pair in zip(first, second, strict=True)]
        cpus = [(one.cpu, other.cpu) for one, other in zip(*sides, strict=True)]
        assumed = tuple(dict.fromkeys((*some.assumed, *others.assumed)))
        if as_json:
            content = joined(
                [
                    reports.diff_object(pair, types, one, limit)
                    for pair, one in zip(cpus, found, strict=True)
                ]
            )
            heads = {"before": looked_at(some), "after": looked_at(others)}
            say(json.dumps(bare("diff", **heads, **content)))
        else:
            head = reports.head_lines(some, others, after is None)
            lines = of_parts(
                sides[0], lambda n: reports.diff_lines(cpus[n], types, found[n], limit)
            )
            show("\n".join((*head, *lines, *assumed_lines(assumed))))
        if not all(one.same for one in found):
            raise typer.Exit(DISAGREEMENT)


DAY = 24 * 60 * 60
"""The longest wait, in seconds."""


def _looked_at(source: Source) -> tuple[Snapshot, list[Graph]]:
    """A snapshot, and the tables of each of its parts, which are read before it ends."""
    from dataclasses import replace

    from harness.inspect import architecture

    with source.opened() as snapshot:
        # As in a guest of TCG, which the other may be.
        cpu = architecture.of(snapshot.cpu).in_tables(snapshot.cpu)
        snapshot = replace(snapshot, cpu=cpu)
        return snapshot, [_read(one) for one in architecture.parts(snapshot)]


def _read(part: Snapshot) -> Graph:
    """The tables of a part of a snapshot."""
    from harness.inspect import graph

    return graph.read(part.memory, part.cpu.format, part.cpu.roots, graph.FEWER)


def _split(graph: Graph) -> list[tuple[int, int]]:
    """How the format of tables splits addresses."""
    return [(level.shift, level.index_bits) for level in graph.format.levels]
