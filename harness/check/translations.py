"""What QEMU's monitor makes of addresses: `gva2gpa`, its debug walker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness.check.compare import EXAMPLES, Comparison, Disagreement

if TYPE_CHECKING:
    from harness.machine.gdbstub import StubMonitor
    from harness.machine.monitor import Monitor

GVA2GPA: Final = "gva2gpa"
"""The oracle."""

SAMPLE: Final = 200
"""Mappings whose edges are asked about, and runs of pages that are read through the monitor, unless
all are wanted."""


def compare_translations(
    monitor: Monitor | StubMonitor, addresses: Sequence[int], expected: Sequence[int | None]
) -> Comparison:
    """Asks where addresses lead; `expected` is None where they lead nowhere."""
    comparison = Comparison(GVA2GPA, compared=len(addresses))
    answers = monitor.translations(addresses)
    wrong = [
        Disagreement(GVA2GPA, address, None, _said(ours), _said(theirs))
        for address, ours, theirs in zip(addresses, expected, answers, strict=True)
        if ours != theirs
    ]
    comparison.disagree(len(wrong), wrong[:EXAMPLES])
    return comparison


def _said(physical: int | None) -> str:
    return "unmapped" if physical is None else f"{physical:#x}"
