"""Where tables say something else than was meant: as lines of text and as objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Final

from harness.check.keys import in_units
from harness.inspect import architecture
from harness.inspect.expect import SAYING, Unmet
from harness.inspect.fault import Explanation, explain
from harness.inspect.snapshot import Snapshot
from harness.paging.address import Span
from harness.paging.processor import root_for
from harness.paging.walk import walk
from harness.report import fault
from harness.report.objects import span_object
from harness.report.text import aligned, all_digits, counted, letters, rights
from harness.report.translation import labelled

SHOWN: Final = 8
"""What is shown of a list as text; an object has all."""


def unmet_lines(snapshot: Snapshot, found: Sequence[Unmet]) -> Iterator[str]:
    """Everything that is not as expected, each with what `pagetable fault` says of it.

    Expectations that are alike and not met in the same way are shown as one.  A walk is shown once,
    and so is what to change where the same entries, or their like on the way to another address,
    withhold the same.
    """
    walks, causes = set[_Walk](), set[_Cause]()
    groups = _groups(snapshot, found)
    for number, (one, *others) in enumerate(groups[:SHOWN]):
        if number:
            yield ""
        explanation = explain(snapshot, one.address, one.access)
        taken, cause = _walk(explanation), _cause(explanation)
        yield from _lines(snapshot, one, others, explanation, taken in walks, cause in causes)
        walks.add(taken)
        causes.update([cause] if cause else [])
    if more := len(found) - sum(map(len, groups[:SHOWN])):
        yield f"and {counted(more, 'expectation')} more that are not met"


COMPARED: Final = 1 << 12
"""How many that are not met are looked at for those that are alike."""


def _groups(snapshot: Snapshot, found: Sequence[Unmet]) -> list[list[Unmet]]:
    """Those that are not met in the same way, by expectations that differ in their addresses
    alone."""
    groups: dict[object, list[Unmet]] = {}
    for one in found[:COMPARED]:
        groups.setdefault(_way(snapshot, one), []).append(one)
    return list(groups.values())


def _way(snapshot: Snapshot, one: Unmet) -> object:
    """In which way an expectation is not met: equal where another is not in the same."""
    cpu, expect, asked = snapshot.cpu, one.expect, architecture.of(snapshot.cpu)
    if expect is None:
        return None
    answer = asked.outcome(cpu, snapshot.memory, one.address, one.access)
    root = root_for(cpu, one.address)
    steps = walk(snapshot.memory, root, one.address).steps if root else ()
    given = tuple(step.slot.table.format.granted(step.raw, step.slot.level) for step in steps)
    why = getattr(answer, "reason", type(answer))
    said: object = one.wanted, one.does
    if one.wanted.startswith("to reach") and isinstance(answer, asked.allowed):
        said = answer.physical - (expect.physical or 0) - (one.address - expect.virtual)
    meant = [getattr(expect, name) for name in SAYING if name != "physical"]
    whole = one.size == expect.span(cpu).size
    return repr(meant), expect.absent, one.access, said, why, given, whole


_Walk = tuple[tuple[int, int], ...]
"""Where the entries of a walk are, and what they hold."""

_Cause = tuple[Enum, tuple[int, ...]] | None
"""By which rule an access is denied, and the levels of the entries by which it is."""


def _walk(explanation: Explanation) -> _Walk:
    stages = explanation.translation.stages
    return tuple((stage.slot.address, stage.reading.raw) for stage in stages if stage.slot)


def _cause(explanation: Explanation) -> _Cause:
    reason, blamed = getattr(explanation.outcome, "reason", None), explanation.to_blame
    if reason is None or not blamed:
        return None
    return reason, tuple(stage.slot.level for stage in blamed if stage.slot)


def _lines(
    snapshot: Snapshot,
    one: Unmet,
    others: Sequence[Unmet],
    explanation: Explanation,
    walked: bool,
    alike: bool,
) -> Iterator[str]:
    """One of them, and where others are not met in the same way; `walked` where its walk was shown
    before, `alike` where its cause was."""
    cpu = snapshot.cpu
    head, *why = fault.why_lines(explanation)
    yield head
    yield from labelled("expected", _expected_lines(snapshot, one))
    yield from labelled("likewise", _likewise_lines(snapshot, others))
    yield from labelled("instead", [one.instead] if one.instead else [])
    yield from labelled("change", _change_lines(one, explanation))
    yield from why
    if one.missing is not None:
        pass
    elif alike:
        yield from labelled("change", ["as above, in these entries"])
    elif not walked or not isinstance(explanation.outcome, architecture.of(cpu).allowed):
        yield from fault.change_lines(cpu, explanation)
    if walked:
        yield from labelled("walk", ["as above"])
    elif not alike:
        yield from fault.walk_lines(explanation)


def _expected_lines(snapshot: Snapshot, one: Unmet) -> Iterator[str]:
    """What was expected where, and where else it is not so."""
    expect, cpu = one.expect, architecture.of(snapshot.cpu).part(snapshot.cpu, one.address)
    if expect is None:
        yield f"{one.wanted}: no expectation names these {in_units(one.size)}"
        rows = [
            (
                str(span),
                in_units(span.size),
                letters(cpu.format, effective, architecture.never_withheld(cpu)),
                f"{at:#x}",
            )
            for span, effective, at in one.ranges[:SHOWN]
        ]
        yield from (f"  {line}" for line in aligned(rows))
        if (more := len(one.ranges) - SHOWN) > 0:
            yield f"  and {counted(more, 'range')} more"
        return
    span = expect.span(snapshot.cpu)
    place = f" ({expect.where})" if expect.where else ""
    said = f" in {span}" if expect.absent else f", by {span} {expect}"
    yield f"{one.wanted}{said}{place}"
    part = "all" if one.size == span.size else f"{in_units(one.size)} of"
    also = f", by {' and '.join(map(str, one.also))} too" if one.also else ""
    if also or span.size > cpu.format.levels[0].size:
        yield f"missed in {part} {in_units(span.size)}{also}"


def _likewise_lines(snapshot: Snapshot, others: Sequence[Unmet]) -> Iterator[str]:
    """Where other expectations are not met in the same way."""
    spans: list[Span] = []
    for span in sorted(one.expect.span(snapshot.cpu) for one in others if one.expect):
        if spans and span.first <= spans[-1].last + 1:
            joined = spans.pop()
            span = Span(joined.first, max(joined.last, span.last))
        spans.append(span)
    for span in spans[:_PLACES]:
        yield f"{span}"
    if others:
        more = f" in {len(spans)} places" if len(spans) > _PLACES else ""
        yield f"by {counted(len(others), 'expectation')} more{more}"


_PLACES: Final = 3
"""Spans that are named."""


def _change_lines(one: Unmet, explanation: Explanation) -> Iterator[str]:
    """What the page's entry would have to hold, and where there is none, those above it."""
    if one.missing is not None:
        yield from fault.missing_lines(
            explanation.cpu, explanation.translation, one.missing, one.change
        )
        return
    if one.change is None or not explanation.translation.stages:
        return
    leaf = explanation.translation.stages[-1]
    assert leaf.slot is not None
    width = leaf.slot.table.format.entry_bytes
    old, new = (all_digits(raw, width) for raw in (leaf.reading.raw, one.change))
    yield f"{leaf.reading.name} at {leaf.slot.address:#x}: {old} -> {new}"
    yield f"  {one.does}"


def as_object(snapshot: Snapshot, one: Unmet) -> dict[str, Any]:
    """One of them as what JSON can hold."""
    expect, explanation = one.expect, explain(snapshot, one.address, one.access)
    cpu = architecture.of(snapshot.cpu).part(snapshot.cpu, one.address)
    found = explanation.translation
    return {
        "expected": None if expect is None else str(expect),
        "where": None if expect is None else expect.where or None,
        "span": None if expect is None else span_object(expect.span(snapshot.cpu)),
        "address": hex(one.address),
        "wanted": one.wanted,
        "size": one.size,
        "also": [str(access) for access in one.also],
        "change": None if one.change is None else hex(one.change),
        "missing": one.missing and fault.missing_object(found, one.missing),
        "instead": one.instead or None,
        "ranges": [
            {
                **span_object(span),
                "effective_rights": rights(
                    cpu.format, effective | architecture.never_withheld(cpu)
                ),
                "physical": hex(physical),
            }
            for span, effective, physical in one.ranges
        ],
        "explained": fault.as_object(snapshot.cpu, explanation),
    }
