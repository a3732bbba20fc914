"""The state in which tables are read, in words."""

from __future__ import annotations

from collections.abc import Iterator

from harness.inspect.decode import Role
from harness.inspect.snapshot import Snapshot
from harness.inspect.x86 import cr3
from harness.paging.x86.cpu import Cpu, Mode
from harness.report.visible import visible


def head_lines(snapshot: Snapshot) -> Iterator[str]:
    """What was looked at, by which CR3, and what there is to know of it."""
    known = snapshot.given is None or snapshot.cpu.base not in snapshot.given.unplaced
    root = cr3_text(snapshot.cpu) if known else "CR3 not given"
    yield f"{visible(snapshot.title)}, {root}"
    yield from (f"Note: {sentence}" for sentence in notes(snapshot))


def notes(snapshot: Snapshot) -> Iterator[str]:
    """What there is to know of a snapshot before anything that is said of it, a sentence each."""
    if not snapshot.cpu.wp:
        yield (
            "CR0.WP=0, so the supervisor writes to every page that it can reach, whatever the"
            " entries withhold (SDM volume 3A, 4.6.1)."
        )
    if snapshot.cpu.lass:
        yield (
            "CR4.LASS=1, so the user reaches nothing of the upper half of the addresses, and the"
            " supervisor executes nothing of the lower, whatever the entries grant (SDM volume 3A,"
            " linear-address-space separation)."
        )
    yield from snapshot.notes


def cr3_text(cpu: Cpu) -> str:
    """CR3, and where it has other bits than an address, where it leads and what these are."""
    rest = list(_rest(cpu))
    if not rest:
        return f"CR3 {cpu.cr3:#x}"
    what = "PDPTEs" if cpu.mode is Mode.PAE else "root"
    return f"CR3 {cpu.cr3:#x} ({what} at {cpu.base:#x}; {', '.join(rest)})"


def _rest(cpu: Cpu) -> Iterator[str]:
    """What the bits of CR3 are that are no part of the address."""
    given = [part for part in reversed(cr3.read(cpu).parts) if part.value]
    for part in given:
        if part.name == "PCID":
            yield f"PCID {part.value:#x}"
        elif part.name not in ("address", "reserved") and part.role is not Role.IGNORED:
            which = f"the {part.name} bit" if part.role is Role.MARK else part.name
            yield f"{part.value << part.low:#x} is {which}"
    rest = {
        "reserved": (part for part in given if part.name == "reserved"),
        "ignored": (part for part in given if part.role is Role.IGNORED),
    }
    for name, parts in rest.items():
        if left := sum(part.value << part.low for part in parts):
            yield f"{left:#x} is {name}"
