"""`pagetable walk`: an address, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.ending import sentences
from harness.cli.output import Html, Json, Svg, say, tell, writable, write
from harness.cli.source import Entries, Source, number, with_source

if TYPE_CHECKING:
    from harness.inspect.snapshot import Snapshot
    from harness.inspect.translation import Translation


@with_source
def walk(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS", help="Virtual addresses.")],
    source: Source,
    entries: Entries = None,
    linux: Annotated[
        bool, typer.Option("--linux", help="Also show what Linux keeps in the entries.")
    ] = False,
    as_json: Json = False,
    html: Html = None,
    svg: Svg = None,
) -> None:
    """Show how addresses are translated, entry by entry.

    That is the indices into which an address splits, every entry on the way with the rights that
    are left after it, and the page, or why there is none.

    Example: pagetable walk 0x1000 --layout smallest

    Example: pagetable walk 0x1000 --layout smallest --html walk.html --svg walk.svg

    Example: pagetable walk ffffc9000002d000 --entries 'PGD=100000067 PUD=100200067 PMD=0'
    """
    with sentences(), _opened(source, addresses, entries) as snapshot:
        from harness.inspect.translation import translate
        from harness.machine.errors import Misuse
        from harness.paging.address import Virtual
        from harness.report.objects import answer
        from harness.report.translation import as_object, translation_lines

        if snapshot.given is not None and (html or svg):
            raise Misuse("a walk of entries that were given is text: a picture needs all of it")
        for path in (html, svg):
            writable(path)
        asked = [Virtual(number("the address", text)) for text in addresses]
        found = [translate(snapshot, address, linux) for address in asked]
        if svg is not None:
            write(svg, _picture(snapshot, found))
        if html is not None:
            from harness.report.html.walk import walk_page

            write(html, walk_page(snapshot, found))
        cpu = snapshot.cpu
        if as_json:
            walks = [as_object(cpu, one) for one in found]
            say(json.dumps(answer("walk", snapshot, walks=walks)))
            return
        first, *others = ([*translation_lines(cpu, one)] for one in found)
        tell(snapshot, [*first, *(line for lines in others for line in ("", *lines))])


@contextmanager
def _opened(source: Source, addresses: list[str], entries: str | None) -> Iterator[Snapshot]:
    """The snapshot in which the addresses are walked."""
    from harness.machine.errors import Misuse

    if entries is None:
        with source.opened(others=("entries",)) as snapshot:
            yield snapshot
        return
    if len(addresses) != 1:
        raise Misuse(f"--entries are those of one address, and {len(addresses)} are given")
    yield source.of_entries(entries, number("the address", addresses[0]))


def _picture(snapshot: Snapshot, found: list[Translation]) -> str:
    """The picture of the walk of one address; Misuse where there are several, or no walk."""
    from harness.machine.errors import Misuse
    from harness.report import state
    from harness.report.diagram import picture

    if len(found) != 1:
        raise Misuse(f"--svg draws one walk, and {len(found)} addresses are given")
    if found[0].walk is None:
        raise Misuse(f"there is no walk of {found[0].asked:#x} to draw: {found[0].why}")
    register = state.of(snapshot.cpu).root(found[0].address)
    return picture(found[0].walk, register, snapshot.title, effective=found[0].effective)
