"""What came of watching the flushes of a guest, as lines of text and as an object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from harness.architectures import module_of
from harness.check.flushes import FAULT, RESTORED, UNTOLD, Cached, Cause, FailOn, Flushes, Lost
from harness.inspect.symbols import Symbols
from harness.machine.machine import dotted
from harness.report.objects import bare, cpu_object
from harness.report.text import all_digits, counted, walk_lines

MOST_SHOWN = 20
"""Causes that are shown to people; all are in the object."""

_TAKEN = {
    Lost.PRESENT: "which unmaps it",
    Lost.FRAME: "which leads elsewhere",
    Lost.READ: "which withholds read",
    Lost.WRITE: "which withholds write",
    Lost.USER: "which withholds user",
    Lost.EXECUTE: "which withholds execute",
    Lost.ROOT: "which has another root",
    Lost.OTHER: "",
}
_BY: Final = {FAULT: "a page fault", RESTORED: "restoring the entry", UNTOLD: "what is not known"}
_VIA = {
    Cached.TRANSLATION: "",
    Cached.STRUCTURE: ", by an entry above the page that was cached",
    Cached.REGISTER: ", by a PDPTE that was loaded with CR3",
}


class Words(Protocol):
    """What the module `flushes` of an architecture says.

    BY    what a flush is called, by its name in the plugin's report
    SEEN  the same of those that are counted
    ROOT  the register that has the root
    """

    BY: Mapping[str, str]
    SEEN: Mapping[str, str]
    ROOT: str


def _words(found: Flushes) -> Words:
    words: Words = module_of(found.arch, "report", "flushes")
    return words


def lines(found: Flushes, on: FailOn, symbols: Symbols | None = None) -> Iterator[str]:
    """The causes that make the run fail, worst first, then what was counted, and the verdict."""
    words = _words(found)
    shown = [cause for cause in found.causes if cause.late or on is FailOn.STALE]
    for number, cause in enumerate(shown[:MOST_SHOWN], 1):
        yield from _cause_lines(number, cause, words, symbols)
        yield ""
    if len(shown) > MOST_SHOWN:
        yield f"and {counted(len(shown) - MOST_SHOWN, 'more cause')}, which --json shows"
        yield ""
    totals = found.totals
    yield from notes(found, symbols)
    flushes = ", ".join(f"{totals[name]:,} {called}" for name, called in words.SEEN.items())
    yield (
        f"seen      {_changes(totals)} taking something from an entry, {flushes},"
        f" {counted(totals['faults'], 'page fault')}"
    )
    excused = totals["uses"] - totals["late"]
    late = counted(totals["late"], "late use")
    yield f"stale     {late}, {excused:,} that a later flush may excuse"
    yield f"ended     {_ending(found)}, after {found.watched.seconds:.1f} s"
    yield ""
    yield verdict(found, on)


def notes(found: Flushes, symbols: Symbols | None) -> Iterator[str]:
    """What to know of the run before one relies on it, a sentence each."""
    totals = found.totals
    yield from found.not_run_on
    if totals["lost_causes"]:
        lost = counted(totals["lost_causes"], "use")
        yield f"There was no room for the causes of {lost}"
    if totals["forgotten"]:
        cached = counted(totals["forgotten"], "cached entry")
        yield f"There was no room for {cached}, which the plugin forgot"
    if count := found.without_author:
        yield f"Uses of changes whose store was not seen, which are never late: {count:,}"
    authors = {cause.change.pc for cause in found.causes} - {None}
    if symbols and authors and not any(_symbol(pc, symbols) for pc in authors):
        yield (
            "None of the code that made the changes is in the file of symbols: it is another"
            " kernel's, or this one was not booted with nokaslr"
        )


def _ending(found: Flushes) -> str:
    watched = found.watched
    if watched.exit_code < 0:
        return f"{watched.ending.value} (signal {-watched.exit_code})"
    return f"{watched.ending.value} (exit code {watched.exit_code})"


def verdict(found: Flushes, on: FailOn) -> str:
    """What came of it, in a sentence."""
    if found.failed or found.unwatched:
        return found.failed or found.unwatched or ""
    count = found.failing(on)
    changes = f"{_changes(found.totals)} of the guest's tables"
    if not count:
        return f"No {on.value} use of a translation was found, among {changes}."
    if on is FailOn.STALE:
        return (
            f"{counted(count, 'use')} of stale translations, which a later flush may excuse, among"
            f" {changes}."
        )
    return (
        f"A flush is missing: {counted(count, 'late use')} of what was cached before a change,"
        f" among {changes}."
    )


def _changes(totals: Mapping[str, int]) -> str:
    return counted(totals["narrowed"], "change")


def _cause_lines(number: int, cause: Cause, words: Words, symbols: Symbols | None) -> Iterator[str]:
    change, mode = cause.change, "user" if cause.user else "supervisor"
    format = cause.cpu.format
    if change.address is None:
        entry = words.ROOT
    else:
        entry = f"{format.levels[change.level].name} at {change.address:#x}"
    uses = f"{cause.uses:,} use{'s' if cause.uses > 1 else ''}"
    late = f", {cause.late:,} of them late" if cause.late else ""
    act = f"{mode} {cause.kind}"
    yield f"{number}. {act} at {cause.address:#x}: {uses} like this{late}"
    before, after = (all_digits(raw, format.entry_bytes) for raw in (change.before, change.after))
    taken = _TAKEN[change.lost]
    yield f"  changed   {entry}: {before} -> {after}"
    yield f"            {taken}{', ' if taken else ''}{_author(cause, symbols)}"
    if cause.denied:
        yield f"  denied    a page fault, where what was cached leads to {cause.leads:#x}"
    else:
        yield f"  passed    to {cause.leads:#x}, as cached{_VIA[cause.cached]}"
    yield f"  used      by processor {cause.processor} at {_code(cause.pc, symbols)}"
    yield f"  flushed   {_flushed(cause, words)}"
    yield from _labelled("cached", _differing(cause))
    yield from _labelled("tables", walk_lines(cause.now) if cause.now else ["not known"])


def _author(cause: Cause, symbols: Symbols | None) -> str:
    change = cause.change
    if change.author is None or change.pc is None:
        return "by a store that was not seen"
    return f"by processor {change.author} at {_code(change.pc, symbols)}"


def _code(pc: int, symbols: Symbols | None) -> str:
    name = symbols.name(pc) if symbols else None
    return f"{pc:#x} {name}" if name else f"{pc:#x}"


def _flushed(cause: Cause, words: Words) -> str:
    called = {**_BY, **words.BY}
    parts = [f"{count:,} by {called[flush]}" for flush, count in cause.flushed.items() if count]
    if cause.unflushed:
        parts.append(f"{cause.unflushed:,} never")
    entries = "entry" if cause.entries == 1 else "entries"
    return f"{cause.entries:,} cached {entries}: " + ", ".join(parts)


def _differing(cause: Cause) -> list[str]:
    """The entries by which what was cached leads elsewhere than the tables do."""
    if cause.was is None:
        return ["not known"]
    head, *rows = walk_lines(cause.was)
    steps = cause.now.steps if cause.now else ()
    return [
        head,
        *(row for row, step in zip(rows, cause.was.steps, strict=False) if step not in steps),
    ]


def _labelled(label: str, walk: list[str]) -> Iterator[str]:
    """A walk behind its label."""
    for number, line in enumerate(walk):
        yield f"  {'' if number else label:8}  {line}".rstrip()


def as_object(found: Flushes, on: FailOn, symbols: Symbols | None = None) -> dict[str, Any]:
    """The run as what JSON can hold."""
    watched, totals = found.watched, found.totals
    counts = ("blocks", "stores", "narrowed", *found.rules.FLUSHES, "faults")
    return bare(
        "flushes",
        arch=found.arch,
        verdict=_verdict_name(found, on),
        fail_on=on.value,
        ended=watched.ending.name.lower(),
        exit_code=watched.exit_code,
        qemu=dotted(found.qemu),
        not_run_on=list(found.not_run_on),
        notes=list(notes(found, symbols)),
        seconds=round(watched.seconds, 3),
        processors=totals["processors"],
        seen={name: totals[name] for name in counts},
        uses=totals["uses"],
        late=totals["late"],
        denied=totals["denied"],
        uses_without_author=found.without_author,
        uses_without_cause=totals["lost_causes"],
        forgotten=totals["forgotten"],
        causes=[_cause_object(cause, symbols) for cause in found.causes],
    )


def _verdict_name(found: Flushes, on: FailOn) -> str:
    if found.failed:
        return "failed"
    if found.unwatched:
        return "unwatched"
    return "missing" if found.failing(on) else "none"


def _cause_object(cause: Cause, symbols: Symbols | None) -> dict[str, Any]:
    change = cause.change
    rooted = change.address is None
    return {
        "uses": cause.uses,
        "late": cause.late,
        "entries": cause.entries,
        "flushed": dict(cause.flushed),
        "unflushed": cause.unflushed,
        "cached": cause.cached.value,
        "change": {
            "entry": None if rooted else cause.cpu.format.levels[change.level].name,
            "slot": None if change.address is None else hex(change.address),
            "level": None if rooted else change.level,
            "lost": change.lost.value,
            "old": hex(change.before),
            "new": hex(change.after),
            "processor": change.author,
            "pc": None if change.pc is None else hex(change.pc),
            "symbol": _symbol(change.pc, symbols),
        },
        "use": {
            "address": hex(cause.address),
            "kind": cause.kind,
            "user": cause.user,
            "denied": cause.denied,
            "physical": hex(cause.leads),
            "processor": cause.processor,
            "pc": hex(cause.pc),
            "symbol": _symbol(cause.pc, symbols),
            "cpu": cpu_object(cause.cpu),
            "was": walk_lines(cause.was) if cause.was else None,
            "now": walk_lines(cause.now) if cause.now else None,
        },
    }


def _symbol(pc: int | None, symbols: Symbols | None) -> str | None:
    return symbols.name(pc) if symbols and pc is not None else None
