"""Where tables say something else than was meant: as lines of text and as objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from harness.check.keys import in_units
from harness.inspect.expect import Unmet
from harness.inspect.fault import Explanation, explain
from harness.inspect.snapshot import Snapshot
from harness.report import fault
from harness.report.objects import span_object
from harness.report.text import aligned, all_digits, counted, letters
from harness.report.translation import labelled

SHOWN: Final = 8
"""What is shown of a list as text; an object has all."""


def unmet_lines(snapshot: Snapshot, found: Sequence[Unmet]) -> Iterator[str]:
    """Everything that is not as expected, each with what `pagetable fault` says of it."""
    for number, one in enumerate(found[:SHOWN]):
        if number:
            yield ""
        yield from _lines(snapshot, one)
    if len(found) > SHOWN:
        yield f"and {counted(len(found) - SHOWN, 'expectation')} more that are not met"


def _lines(snapshot: Snapshot, one: Unmet) -> Iterator[str]:
    cpu, explanation = snapshot.cpu, _explained(snapshot, one)
    head, *rest = fault.explanation_lines(cpu, explanation)
    yield head
    yield from labelled("expected", _expected_lines(snapshot, one))
    yield from labelled("instead", [one.instead] if one.instead else [])
    yield from labelled("change", _change_lines(one, explanation))
    yield from rest


def _explained(snapshot: Snapshot, one: Unmet) -> Explanation:
    return explain(snapshot, one.address, one.access)


def _expected_lines(snapshot: Snapshot, one: Unmet) -> Iterator[str]:
    """What was expected where, and where else it is not so."""
    expect = one.expect
    if expect is None:
        yield f"{one.wanted}: no expectation names these {in_units(one.size)}"
        rows = [
            (str(span), in_units(span.size), letters(snapshot.cpu.format, granted), f"{at:#x}")
            for span, granted, at in one.ranges[:SHOWN]
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
    if also or span.size > snapshot.cpu.format.levels[0].size:
        yield f"missed in {part} {in_units(span.size)}{also}"


def _change_lines(one: Unmet, explanation: Explanation) -> Iterator[str]:
    """What the page's entry would have to hold."""
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
    expect = one.expect
    return {
        "expected": None if expect is None else str(expect),
        "where": None if expect is None else expect.where or None,
        "span": None if expect is None else span_object(expect.span(snapshot.cpu)),
        "address": hex(one.address),
        "wanted": one.wanted,
        "size": one.size,
        "also": [str(access) for access in one.also],
        "change": None if one.change is None else hex(one.change),
        "instead": one.instead or None,
        "ranges": [
            {
                **span_object(span),
                "rights": letters(snapshot.cpu.format, granted),
                "physical": hex(physical),
            }
            for span, granted, physical in one.ranges
        ],
        "explained": fault.as_object(snapshot.cpu, _explained(snapshot, one)),
    }
