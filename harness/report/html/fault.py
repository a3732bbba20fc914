"""Accesses to an address, and what they come to, as a page; and the picture of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from harness.inspect import architecture
from harness.inspect.fault import Explanation
from harness.inspect.snapshot import Snapshot
from harness.paging.table import Slot
from harness.report import diagram, state
from harness.report.fault import comes_to, explanation_lines
from harness.report.html import space_map
from harness.report.html.page import page


def fault_page(snapshot: Snapshot, explained: Sequence[Explanation]) -> str:
    """The page of accesses to one address: one picture a cause, with what denies the accesses, and
    of each the changes that let it pass; and the map of the space."""
    cpu = snapshot.cpu
    found = explained[0].translation
    causes: dict[object, list[Explanation]] = {}
    for one in explained:
        causes.setdefault(_cause(one), []).append(one)
    return page(
        "fault.html",
        title=f"Accesses to {found.asked:#x} in {snapshot.title}",
        snapshot=snapshot,
        asked=found.asked,
        found=found,
        register=state.of(cpu).root,
        causes=[(_said(alike), _denial(alike), alike) for alike in causes.values()],
        lines={one.access: list(explanation_lines(cpu, one)) for one in explained},
        map=space_map.as_object(replace(snapshot, cpu=found.cpu)),
    )


def fault_picture(snapshot: Snapshot, one: Explanation) -> str:
    """The picture of one access, whose address has a walk."""
    walk = one.translation.walk
    assert walk is not None
    register = state.of(snapshot.cpu).root(walk.address)
    effective = one.translation.effective
    return diagram.picture(walk, register, snapshot.title, _denial([one]), effective)


def _cause(one: Explanation) -> object:
    """Equal for accesses that are allowed, or denied by the same rule in the same entries."""
    return type(one.outcome), _reason(one), _slots(one)


def _reason(one: Explanation) -> Enum | None:
    """The rule by which an access faults; None where it does not, or that is not known."""
    asked = architecture.of(one.cpu)
    passes = isinstance(one.outcome, asked.allowed)
    faults = not passes and not asked.unknown(one.outcome) and not one.unknown
    found: Enum | None = one.outcome.reason if faults else None
    return found


def _slots(one: Explanation) -> frozenset[Slot]:
    return frozenset(stage.slot for stage in one.to_blame if stage.slot is not None)


def _said(alike: Sequence[Explanation]) -> str:
    """What accesses of one cause come to."""
    reason = _reason(alike[0])
    rule = f", {reason.value}" if reason else ""
    *others, last = [str(one.access) for one in alike]
    who = f"{', '.join(others)} and {last}" if others else last
    return f"{who}: {comes_to(alike)}{rule}"


def _denial(alike: Sequence[Explanation]) -> diagram.Denial | None:
    """What denies accesses of one cause; None of those that are allowed."""
    if isinstance(alike[0].outcome, architecture.of(alike[0].cpu).allowed):
        return None
    return diagram.Denial(_said(alike), _slots(alike[0]))
