"""Accesses to an address, and what they come to, as a page; and the picture of one."""

from __future__ import annotations

from collections.abc import Sequence

from harness.inspect.fault import Explanation
from harness.inspect.snapshot import Snapshot
from harness.paging.x86.access import Allowed, Fault
from harness.report import diagram
from harness.report.fault import explanation_lines, outcome_text
from harness.report.html import space_map
from harness.report.html.page import page


def fault_page(snapshot: Snapshot, explained: Sequence[Explanation]) -> str:
    """The page of accesses to one address: of each the picture, with what denies it, and the
    changes that let it pass; and the map of the space."""
    cpu = snapshot.cpu
    found = explained[0].translation
    return page(
        "fault.html",
        title=f"Accesses to {found.asked:#x} in {snapshot.title}",
        snapshot=snapshot,
        asked=found.asked,
        explained=[(one, denial(one), list(explanation_lines(cpu, one))) for one in explained],
        map=space_map.as_object(snapshot),
    )


def fault_picture(snapshot: Snapshot, one: Explanation) -> str:
    """The picture of one access, whose address has a walk."""
    walk = one.translation.walk
    assert walk is not None
    return diagram.picture(walk, snapshot.title, denial(one))


def denial(one: Explanation) -> diagram.Denial | None:
    """What denies an access; None of one that is allowed."""
    if isinstance(one.outcome, Allowed):
        return None
    rule = f", {one.outcome.reason.value}" if isinstance(one.outcome, Fault) else ""
    slots = frozenset(stage.slot for stage in one.to_blame if stage.slot is not None)
    return diagram.Denial(f"{one.access}: {outcome_text(one.outcome)}{rule}", slots)
