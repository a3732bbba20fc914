"""What is odd about a space, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.inspect.architecture import Types
from harness.inspect.lint import Broken, Finding, Severity
from harness.inspect.snapshot import Snapshot
from harness.report.objects import slot_object, span_object
from harness.report.state import not_given_lines
from harness.report.text import aligned, counted


def lint_lines(
    broken: Sequence[Broken], cut: Sequence[str], manual: str, snapshot: Snapshot
) -> Iterator[str]:
    """Each rule that is broken, with its first findings, and how many there are.

    manual  whose sections are named
    """
    for one in broken:
        rule = one.rule
        section = f" ({manual}, {rule.section})" if rule.section else ""
        times = counted(one.count, "time")
        yield f"{rule.severity.value}: {rule.name}, {times}: {rule.sentence}{section}"
        yield from (f"  {line}" for line in aligned([_cells(found) for found in one.findings]))
        if one.total > len(one.findings):
            yield f"  ... and {one.total - len(one.findings):,} more (--limit)"
        yield ""
    yield from cut
    yield from not_given_lines(snapshot)
    yield verdict(broken, snapshot.doubted)


def verdict(broken: Sequence[Broken], doubted: bool = False) -> str:
    """How many rules are broken."""
    if not broken and doubted:
        return "No rule is broken, but these may be no tables at all: see what is assumed."
    if not broken:
        return "Nothing is odd about this space."
    counts = dict.fromkeys(Severity, 0)
    for one in broken:
        counts[one.rule.severity] += 1
    each = [counted(count, severity.value) for severity, count in counts.items() if count]
    return f"{counted(len(broken), 'rule')} broken: {', '.join(each)}."


def _cells(found: Finding) -> tuple[str, ...]:
    return (
        str(found.where or found.physical),
        counted(found.count, "entry" if found.where else "address"),
        str(found.slot or ""),
        f"at {found.physical}" if found.where and found.physical else "",
        found.detail,
    )


def lint_object(types: Types, broken: Sequence[Broken], cut: Sequence[str]) -> dict[str, Any]:
    """The same as what JSON can hold."""
    return {
        "pat": list(types),
        "broken": [
            {
                "rule": one.rule.name,
                "severity": one.rule.severity.value,
                "sentence": one.rule.sentence,
                "section": one.rule.section or None,
                "total": one.total,
                "count": one.count,
                "findings": [_object(found) for found in one.findings],
            }
            for one in broken
        ],
        "cut": list(cut),
    }


def _object(found: Finding) -> dict[str, Any]:
    return {
        "where": found.where and span_object(found.where),
        "memory": found.physical and span_object(found.physical),
        "slot": found.slot and slot_object(found.slot),
        "count": found.count,
        "detail": found.detail,
    }
