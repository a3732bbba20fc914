"""Disagreements about s390 as files, and the same questions asked again.

A case is self-contained: it carries the text of the layout, or the entries of the path with the
control state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import msgspec
import numpy as np

from harness.check import replay as files
from harness.check.compare import PROBE, Comparison
from harness.check.layouts import Layout, divided, parse
from harness.check.replay import LayoutCase, SavedLayoutCase
from harness.check.s390 import probes
from harness.check.s390.cases import SPACES, each
from harness.check.s390.layouts import build
from harness.check.s390.matrix.chain import ACCESSES, MODES, Chain, Control, Lanes
from harness.check.s390.matrix.verdicts import (
    agreeing,
    expected,
    expected_text,
    jobs_of,
    observed_text,
)
from harness.check.s390.validate import state_of
from harness.check.tables import TABLE_BYTES, TableImage, compare_tables
from harness.machine.errors import Misuse
from harness.machine.s390.guest import Guest
from harness.paging.memory import BigEndianMemory
from harness.paging.s390.access import Access, Kind
from harness.paging.s390.cpu import PARTS, Mode

ORACLES: Final = {PROBE: True, TABLE_BYTES: False}
"""Whom cases of layouts ask, and whether about an access."""

WORD, INSTRUCTION = 8, 2
"""Addresses of data and of code are multiples of these."""


@dataclass(frozen=True, kw_only=True)
class MatrixCase(files.MatrixCase):
    """One case of the matrix, and the answers that it got.

    access  one of `chain.ACCESSES`
    user    in problem state
    """

    ARCH: ClassVar = "s390"

    control: Control
    user: bool

    @classmethod
    def of(cls, mode: str, control: Control, made: Lanes, lane: int, **said: str) -> MatrixCase:
        """One lane of what was tried; `said` is the rest."""
        return cls(
            mode=mode,
            control=control,
            words=tuple(made.words[:, lane].tolist()),
            address=int(made.address[lane]),
            access=Kind(int(made.kind[lane])).name.lower(),
            user=bool(made.user[lane]),
            **said,
        )

    @property
    def lanes(self) -> Lanes:
        """The case as the only lane."""
        return Lanes(
            words=np.array(self.words, np.uint64)[:, None],
            address=np.array([self.address], np.uint64),
            kind=np.array([ACCESSES[self.access]], np.uint8),
            user=np.array([self.user]),
        )

    def check(self) -> None:
        """Raises ValueError for what no processor can be asked."""
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; it is one of {', '.join(MODES)}")
        levels = Mode(self.mode).level + 1
        if len(self.words) != levels:
            raise ValueError(f"words are {len(self.words)}, and {self.mode} has {levels}")
        if not all(0 <= word < 1 << 64 for word in self.words):
            raise ValueError("words: what is there is no number of 64 bits")
        if self.access not in ACCESSES:
            raise ValueError(f"access is {self.access!r}; it is one of {', '.join(ACCESSES)}")
        if not 1 <= self.control.quarters <= PARTS:
            raise ValueError(f"control.quarters is {self.control.quarters}; it is 1 to {PARTS}")
        _check_address(self.access == "fetch", self.address)


def _check_address(fetch: bool, address: int) -> None:
    """Raises ValueError for an address of no access that the guest makes: data is one aligned word,
    code a multiple of 2."""
    if not 0 <= address < 1 << 64 or address % (INSTRUCTION if fetch else WORD):
        raise ValueError(f"address is {address:#x}, which this access cannot have")


# ---- files ----


class SavedAccess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An access in a file; the space goes by its kind."""

    kind: str
    user: bool
    space: int

    def read(self) -> Access:
        """The access; ValueError where there is none of its kind."""
        kind = files.kind_named(Kind, self.kind)
        if self.space != SPACES[kind]:
            raise ValueError(f"access.space is {self.space}; of a {self.kind} it is {SPACES[kind]}")
        return Access(kind, self.user, SPACES[kind])


class SavedMatrixCase(files.SavedMatrixCase, frozen=True, kw_only=True):
    """A case in a file, as `MatrixCase.save` writes it."""

    user: bool

    def read(self) -> MatrixCase:
        """The case; ValueError where there is none such."""
        return self.read_as(MatrixCase, Control)


def saved(path: Path) -> LayoutCase | MatrixCase:
    """The case in a file, of whichever kind; CaseError where it cannot be read or holds none."""
    form = SavedLayoutCase[SavedAccess] | SavedMatrixCase
    found: LayoutCase | MatrixCase = files.saved_as(path, form, ORACLES, _checked)
    return found


def _checked(case: LayoutCase) -> LayoutCase:
    """The case; ValueError for what no processor can be asked."""
    _check_address(case.access is not None and case.access.kind is Kind.FETCH, case.address)
    return case


# ---- asked again ----


def replay(case: LayoutCase | MatrixCase, program: str | None = None) -> Comparison:
    """Asks the question of a case in a new guest.

    program  a QEMU for s390x; the usual one unless given

    Raises LayoutError for a layout that cannot be built, Misuse where the question cannot be asked
    here, MachineError for a guest that is lost.
    """
    if isinstance(case, MatrixCase):
        with Guest(program=program) as guest:
            return _of_matrix(guest, case)
    layout = parse(case.text, f"{case.layout}.toml")
    with Guest(ram_bytes=layout.ram, program=program) as guest:
        return _of_layout(guest, layout, case)


def _of_layout(guest: Guest, layout: Layout, case: LayoutCase) -> Comparison:
    memory = BigEndianMemory(guest.ram.buffer, guest.ram.base)
    cpu = build(layout, case.levels, guest.info, memory)
    _, frames = divided(layout)
    if case.access is not None:
        asked = each(np.array([case.address], np.uint64), case.access)
        return probes.ask_guest(guest, state_of(cpu), cpu, memory, frames, asked)
    written = TableImage.of(memory, cpu.roots).holding(case.address)
    with guest.parked(state_of(cpu)) as monitor:
        return compare_tables(monitor, written)


def _of_matrix(guest: Guest, case: MatrixCase) -> Comparison:
    reason = case.control.lacks(guest.info)
    if reason is not None:
        raise Misuse(f"the case cannot be replayed: {reason}")
    chain, lanes = Chain(guest, case.mode), case.lanes
    wanted = expected(chain.cpu(case.control), lanes)
    jobs = jobs_of(chain, lanes, wanted)
    results = guest.run(chain.state(case.control), jobs)
    agrees = bool(agreeing(chain, lanes, jobs, results, wanted)[0])
    said = expected_text(lanes, wanted, 0), observed_text(results[0], len(lanes.words))
    return case.came_to(agrees, (), *said)
