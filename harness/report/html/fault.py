"""Accesses to an address, and what they come to, as a page; and the picture of one."""

from __future__ import annotations

from collections.abc import Sequence

from harness.inspect.fault import Explanation
from harness.inspect.snapshot import Snapshot
from harness.paging.table import Slot
from harness.paging.x86.access import Allowed, Fault
from harness.report import diagram
from harness.report.fault import explanation_lines, outcome_text
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
        causes=[(_said(alike), _denial(alike), alike) for alike in causes.values()],
        lines={one.access: list(explanation_lines(cpu, one)) for one in explained},
        map=space_map.as_object(snapshot),
    )


def fault_picture(snapshot: Snapshot, one: Explanation) -> str:
    """The picture of one access, whose address has a walk."""
    walk = one.translation.walk
    assert walk is not None
    return diagram.picture(walk, snapshot.title, _denial([one]))


def _cause(one: Explanation) -> object:
    """Equal for accesses that are allowed, or denied by the same rule in the same entries."""
    reason = one.outcome.reason if isinstance(one.outcome, Fault) else None
    return type(one.outcome), reason, _slots(one)


def _slots(one: Explanation) -> frozenset[Slot]:
    return frozenset(stage.slot for stage in one.to_blame if stage.slot is not None)


def _said(alike: Sequence[Explanation]) -> str:
    """What accesses of one cause come to."""
    outcome = alike[0].outcome
    if isinstance(outcome, Fault):
        rule = f", {outcome.reason.value}"
        comes_to = f"#{outcome.vector.name}" if alike[1:] else outcome_text(outcome)
    else:
        rule, comes_to = "", outcome_text(outcome)
    *others, last = [str(one.access) for one in alike]
    who = f"{', '.join(others)} and {last}" if others else last
    return f"{who}: {comes_to}{rule}"


def _denial(alike: Sequence[Explanation]) -> diagram.Denial | None:
    """What denies accesses of one cause; None of those that are allowed."""
    if isinstance(alike[0].outcome, Allowed):
        return None
    return diagram.Denial(_said(alike), _slots(alike[0]))
