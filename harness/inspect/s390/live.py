"""What a running QEMU tells of an s390 processor.

Asked is nothing that has QEMU translate an address.  `info registers` shows the PSW and the control
registers, and no prefix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from harness.inspect.architecture import Seen
from harness.inspect.held import hold_tables
from harness.inspect.s390.processor import of_controls
from harness.machine.errors import ProtocolError

if TYPE_CHECKING:
    from harness.check.held import HeldMemory
    from harness.inspect.snapshot import Snapshot
    from harness.machine.foreign import ForeignMonitor
    from harness.machine.gdbstub import StubMonitor

_CONTROL: Final = re.compile(r"\bC([0-9]{2})=([0-9a-f]{16})\b")
_PSW: Final = re.compile(r"\bPSW=mask ([0-9a-f]{16})")

_PROPERTIES: Final = {"edat1": "edat", "edat2": "edat2", "iep": "iep"}
"""The fields of `Cpu`, and what QEMU calls these facilities of a model."""


def seen(
    monitor: ForeignMonitor | StubMonitor, given: Mapping[str, int], memory: HeldMemory
) -> Seen:
    """The processor as it is now, with the registers that are given in place of its own; all tables
    that its ASCE leads to are held.

    Raises SourceError where it designates real space, MachineError where QEMU does not answer.
    """
    text = monitor.state()
    psw = _PSW.search(text)
    controls = {int(number): int(digits, 16) for number, digits in _CONTROL.findall(text)}
    if psw is None or len(controls) < 16:
        raise ProtocolError("info registers does not show the PSW and C00 to C15", "")
    told = {field: monitor.cpu_property(name) for field, name in _PROPERTIES.items()}
    has = {field: value for field, value in told.items() if isinstance(value, bool)}
    title = "the processor"
    found = of_controls(title, controls, int(psw[1], 16), has, given, None)
    hold_tables(memory, found.cpu.roots)
    return found


def hold_beside(snapshot: Snapshot, memory: HeldMemory, stack: bool) -> None:
    """Nothing: the tables are held, and what a program interruption stores is not looked at."""
