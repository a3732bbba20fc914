"""`pagetable fault`: what an access comes to, and faults that were seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.ending import sentences
from harness.cli.output import Json, say, tell
from harness.cli.source import Source, number, with_source

if TYPE_CHECKING:
    from harness.inspect.fault import Explanation
    from harness.inspect.snapshot import Snapshot
    from harness.paging.x86.access import Access


class KindName(StrEnum):
    """What accesses do, by the names that `harness.paging.x86.access.Kind` has for them."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"
    PUSH = "push"
    POP = "pop"
    SHADOW_READ = "shadow-read"
    SHADOW_WRITE = "shadow-write"


@with_source
def fault(
    source: Source,
    address: Annotated[
        str | None,
        typer.Argument(metavar="ADDRESS", help="A virtual address.", show_default=False),
    ] = None,
    access: Annotated[
        KindName | None,
        typer.Option(help="What the access does; the usual ones unless said.", show_default=False),
    ] = None,
    user: Annotated[
        bool | None,
        typer.Option(
            "--user/--supervisor", help="Who makes it; both unless said.", show_default=False
        ),
    ] = None,
    implicit: Annotated[
        bool, typer.Option("--implicit", help="To a system structure, by the supervisor.")
    ] = False,
    ac: Annotated[
        bool | None,
        typer.Option(
            "--ac/--no-ac", help="EFLAGS.AC, in place of the source's.", show_default=False
        ),
    ] = None,
    pkru: Annotated[
        str | None,
        typer.Option(metavar="N", help="In place of the source's own.", show_default=False),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="The error code of a page fault that was seen.", show_default=False
        ),
    ] = None,
    cr2: Annotated[
        str | None, typer.Option(metavar="N", help="The CR2 that was seen.", show_default=False)
    ] = None,
    rip: Annotated[
        str | None, typer.Option(metavar="N", help="The RIP that was seen.", show_default=False)
    ] = None,
    linux: Annotated[
        bool, typer.Option("--linux", help="Also tell what Linux keeps in the entries.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say whether an access to ADDRESS would fault: the vector, error code and CR2, the rule with
    its section (Intel SDM, volume 3A), and the smallest change that would let it pass.

    With --code it goes backwards: a page fault that was seen, in words, and whether the tables of
    the source, if one is named, would give it.

    Example: pagetable fault 0xffff800040000000 --access fetch --user --layout page-sizes

    Example: pagetable fault --code 0x1d --cr2 0x1000
    """
    with sentences():
        from harness.machine.errors import Misuse

        if code is None:
            if address is None:
                raise Misuse("no ADDRESS is given; or add --code, the error code that was seen")
            if cr2 is not None or rip is not None:
                raise Misuse("--cr2 and --rip belong to a fault that was seen: add its --code")
            from harness.inspect.fault import explain
            from harness.paging.address import Virtual

            with source.opened() as snapshot:
                snapshot = _changed(snapshot, ac, pkru)
                accesses = _accesses(access, user, implicit)
                asked = Virtual(number("the address", address))
                found = [explain(snapshot, asked, one, linux) for one in accesses]
                _forward(snapshot, found, access is not None, as_json)
            return
        if address is not None or access is not None or user is not None or implicit:
            raise Misuse("--code tells the access, and --cr2 the address: name neither besides")
        seen = number("the error code", code)
        place = None if cr2 is None else number("CR2", cr2)
        instruction = None if rip is None else number("RIP", rip)
        if source == Source():
            if linux:
                raise Misuse("--linux tells what is in entries: name the source of the tables")
            _words(seen, place, instruction, as_json)
            return
        if place is None:
            raise Misuse("what the tables give depends on the address: add --cr2")
        with source.opened() as snapshot:
            _backward(_changed(snapshot, ac, pkru), seen, place, instruction, linux, as_json)


def _changed(snapshot: Snapshot, ac: bool | None, pkru: str | None) -> Snapshot:
    """The snapshot with what is given of the CPU state in place of its own."""
    cpu = snapshot.cpu if ac is None else replace(snapshot.cpu, ac=ac)
    if pkru is not None:
        cpu = replace(cpu, pkru=number("PKRU", pkru))
    return replace(snapshot, cpu=cpu)


def _accesses(kind: KindName | None, user: bool | None, implicit: bool) -> list[Access]:
    """The accesses that the options name; Misuse where there is no such access."""
    from harness.machine.errors import Misuse
    from harness.paging.x86.access import Access, Kind

    named = [] if kind is None else [Kind[kind.name]]
    kinds = named or [Kind.READ, Kind.WRITE, *([] if implicit else [Kind.FETCH])]
    users = [not implicit, False] if user is None else [user]
    try:
        return [Access(one, by, implicit) for one in kinds for by in dict.fromkeys(users)]
    except ValueError as error:
        raise Misuse(str(error)) from None


def _forward(
    snapshot: Snapshot, found: Sequence[Explanation], in_full: bool, as_json: bool
) -> None:
    """What accesses to one address come to, in full or in a table."""
    from harness.report import fault as reports

    if as_json:
        outcomes = [reports.as_object(snapshot.cpu, each) for each in found]
        asked = hex(found[0].translation.asked)
        _print_object(snapshot, virtual=asked, outcomes=outcomes)
        return
    if not in_full:
        tell(snapshot, reports.accesses_lines(found))
        return
    lines: list[str] = []
    for each in found:
        lines += [*([""] if lines else []), *reports.explanation_lines(snapshot.cpu, each)]
    tell(snapshot, lines)


def _words(code: int, cr2: int | None, rip: int | None, as_json: bool) -> None:
    """What a fault says by itself."""
    from harness.inspect.fault import read_code
    from harness.report import fault as reports

    seen = read_code(code, None, cr2, rip)
    if as_json:
        _print_object(None, seen=reports.seen_object(seen, cr2, rip))
        return
    for line in reports.seen_lines(seen, cr2):
        say(line)


def _backward(
    snapshot: Snapshot, code: int, cr2: int, rip: int | None, linux: bool, as_json: bool
) -> None:
    """What a fault says, and what the tables give."""
    from harness.inspect.fault import compare, read_code
    from harness.paging.address import Virtual
    from harness.report import fault as reports

    seen = read_code(code, snapshot.cpu, cr2, rip)
    found = compare(snapshot, seen, Virtual(cr2), linux)
    if as_json:
        _print_object(
            snapshot,
            virtual=hex(cr2),
            seen=reports.seen_object(seen, cr2, rip),
            given=bool(found.giving),
            explanations=list(found.explanations),
            outcomes=[
                reports.as_object(snapshot.cpu, one) for one in found.giving or found.instead
            ],
        )
        return
    lines = reports.comparison_lines(snapshot.cpu, found)
    tell(snapshot, [*reports.seen_lines(seen, cr2), "", *lines])


def _print_object(snapshot: Snapshot | None, **content: Any) -> None:
    """Prints one object, which has all keys whatever was asked."""
    from harness.report.objects import bare, looked_at

    keys: dict[str, Any] = {"source": None, "cpu": None, "assumed": [], "notes": []}
    keys |= {"virtual": None, "seen": None, "given": None, "explanations": [], "outcomes": []}
    keys |= looked_at(snapshot) if snapshot else {}
    say(json.dumps(bare("fault", **{**keys, **content})))
