"""A disagreement as a file, and the same question asked again.

A case is self-contained: it carries the text of the layout, so that it can be replayed on
another machine and after the layout has changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.debugger import MONITOR_MEMORY
from harness.check.layouts import Layout, parse
from harness.check.replay import VERSION, write
from harness.check.tables import TABLE_BYTES
from harness.check.translations import GVA2GPA
from harness.check.typed import Number
from harness.check.validation import SpaceReport
from harness.check.x86 import debugger
from harness.check.x86.cases import AC, KINDS
from harness.check.x86.validate import build_in, compare_one, guest_for, lacking
from harness.machine.errors import Misuse
from harness.machine.x86.guest import Guest
from harness.paging.x86.access import Access, Kind

KIND = "layout"
"""What a case file says of itself: a question about a layout."""

ORACLES = (
    PROBE,
    TABLE_BYTES,
    MONITOR_MEMORY,
    debugger.INFO_TLB,
    GVA2GPA,
    debugger.MEMSAVE,
)


@dataclass(frozen=True)
class Case:
    """One question about a layout, and the answers that it got.

    layout, text  the name of the layout, and what its file says
    qemu          the version that answered
    the rest      as in SpaceReport and Disagreement
    """

    layout: str
    text: str
    levels: int
    engine: str
    qemu: str
    oracle: str
    address: int
    access: Access | None
    ac: bool
    expected: str
    observed: str

    @classmethod
    def of(cls, space: SpaceReport, found: Disagreement) -> Case:
        """A disagreement about a space."""
        assert found.access is None or isinstance(found.access, Access)
        return cls(
            space.layout.name,
            space.layout.text,
            space.levels,
            space.engine,
            space.qemu,
            found.oracle,
            found.address,
            found.access,
            found.flags == AC,
            found.expected,
            found.observed,
        )

    @property
    def question(self) -> str:
        """What was asked, for people."""
        access = f"{self.access}{', AC set' if self.ac else ''} at " if self.access else ""
        return f"{self.oracle}: {access}{self.address:#x}"

    @property
    def title(self) -> str:
        """What was asked of whom, for people."""
        return f"{self.layout}, {self.levels} levels, {self.engine}, {self.question}"

    def save(self, directory: Path) -> Path:
        """Writes the case to a file whose name says what it is; OSError where that fails."""
        title = f"{self.layout} {self.levels} {self.engine} {self.question}"
        return write(directory, title, self._object())

    def _object(self) -> dict[str, Any]:
        access = self.access
        return {
            **vars(self),
            "case": KIND,
            "address": f"{self.address:#x}",
            "access": access and {"kind": access.kind.name.lower(), "user": access.user},
        }


class SavedAccess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An access in a file; `implicit` is of cases of the matrix alone."""

    kind: str
    user: bool
    implicit: bool = False

    def read(self, kinds: Iterable[Kind]) -> Access:
        """The access; ValueError where its kind is none of these."""
        by_name = {kind.name.lower(): kind for kind in kinds}
        if self.kind not in by_name:
            raise ValueError(f"access.kind is {self.kind!r}; it is one of {', '.join(by_name)}")
        return Access(by_name[self.kind], self.user, self.implicit)


class SavedCase(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="case", tag=KIND
):
    """A case in a file, as `Case.save` writes it."""

    layout: str
    text: str
    levels: int
    engine: str
    qemu: str
    oracle: str
    address: Number
    access: SavedAccess | None
    ac: bool
    expected: str
    observed: str
    version: int = VERSION

    def read(self) -> Case:
        """The case; ValueError where there is none such."""
        if self.oracle not in ORACLES:
            raise ValueError(
                f"there is no oracle {self.oracle!r}: choose one of {', '.join(ORACLES)}"
            )
        if not 0 <= self.address < 1 << 64:
            raise ValueError(f"address is {self.address:#x}, which is not one of 64 bits")
        if (self.access is None) != (self.oracle != PROBE):
            raise ValueError(f"an access goes with the oracle {PROBE}, and with no other")
        access = None if self.access is None else self.access.read(KINDS)
        values = {field.name: getattr(self, field.name) for field in fields(Case)}
        return Case(**{**values, "access": access})


def replay(case: Case, *, program: str | None = None) -> Comparison:
    """Builds the layout of a case in a new guest, and asks the one oracle the one question.

    Raises LayoutError and SpaceError for a layout that cannot be built, Misuse where the
    question cannot be compared here, MachineError for a guest that is lost.
    """
    layout = layout_of(case)
    with guest_for(layout, case.engine, program) as guest:
        return replay_in(guest, layout, case)


def layout_of(case: Case) -> Layout:
    """The layout of a case; LayoutError where it is none."""
    return parse(case.text, f"{case.layout}.toml")


def replay_in(guest: Guest, layout: Layout, case: Case) -> Comparison:
    """The same in a guest that runs already, as `guest_for` has it for the layout."""
    reason = lacking(layout, case.levels, guest.info)
    if reason is None:
        memory, cpu = build_in(guest, layout, case.levels)
        comparison = compare_one(
            guest, memory, cpu, case.oracle, case.address, case.access, case.ac
        )
        if comparison.compared or comparison.disagreed:
            return comparison
        reason = next(iter(comparison.not_comparable), "the layout has nothing there")
    raise Misuse(f"the case cannot be replayed: {reason}")
