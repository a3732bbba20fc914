"""Disagreements about POWER as files, and the same questions asked again.

A case is self-contained: it carries the text of the layout, or the entries of the path with the
control state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

import msgspec
import numpy as np

from harness.check import replay as files
from harness.check.compare import PROBE, Comparison
from harness.check.layouts import Layout, parse
from harness.check.power import probes
from harness.check.power.cases import alone
from harness.check.power.layouts import build
from harness.check.power.matrix.chain import ACCESSES, MODES, TREES, Chain, Control, Lanes
from harness.check.power.matrix.judged import expected
from harness.check.power.matrix.verdicts import agreeing, expected_text, jobs_of, observed_text
from harness.check.power.quirks import ROOT_LEAF, departing
from harness.check.power.validate import KEYS, state_of
from harness.check.power.window import entries
from harness.check.replay import LayoutCase, SavedLayoutCase
from harness.check.tables import TABLE_BYTES, TableImage, compare_tables
from harness.check.validation import built_in
from harness.machine.power.guest import Guest
from harness.machine.power.qemu import SMALLEST_RAM
from harness.paging.address import Span
from harness.paging.power.access import Access, Kind

ORACLES: Final = {PROBE: True, TABLE_BYTES: False}
"""Whom cases of layouts ask, and whether about an access."""

WORD: Final = 8
INSTRUCTION: Final = 4


@dataclass(frozen=True, kw_only=True)
class MatrixCase(files.MatrixCase):
    """One case of the matrix, and the answers that it got.

    quadrant  of the tree that is tested: 0 or 3
    access    one of `chain.ACCESSES`
    user      in problem state
    """

    ARCH: ClassVar = "power"

    quadrant: int
    control: Control
    user: bool

    @classmethod
    def of(cls, chain: Chain, control: Control, tried: Lanes, lane: int, **said: str) -> MatrixCase:
        """One lane of what was tried; `said` is the rest."""
        return cls(
            mode=chain.mode,
            quadrant=chain.quadrant,
            control=control,
            words=tuple(tried.words[:, lane].tolist()),
            address=int(tried.address[lane]),
            access=ACCESSES[tried.kind[lane]],
            user=bool(tried.user[lane]),
            **said,
        )

    @property
    def lanes(self) -> Lanes:
        """The case as the only lane."""
        return Lanes(
            words=np.array(self.words, np.uint64)[:, None],
            address=np.array([self.address], np.uint64),
            kind=np.array([ACCESSES.index(self.access)], np.uint8),
            user=np.array([self.user]),
        )

    def check(self) -> None:
        """Raises ValueError for what no processor can be asked."""
        for name, value, some in (
            ("mode", self.mode, tuple(MODES)),
            ("access", self.access, ACCESSES),
            ("control.tree", self.control.tree, tuple(TREES)),
            ("control.amr", self.control.amr, (0, 1, 2, 3)),
            ("control.iamr", self.control.iamr, (0, 1)),
            ("quadrant", self.quadrant, (0, 3)),
        ):
            if value not in some:
                raise ValueError(f"{name} is {value!r}; it is one of {', '.join(map(str, some))}")
        if self.control.tree == "none" and self.quadrant:
            raise ValueError("control.tree is 'none', and the table always has a process 0")
        if len(self.words) != 4:
            raise ValueError(f"words are {len(self.words)}, and a path has 4")
        if not all(0 <= word < 1 << 64 for word in self.words):
            raise ValueError("words: what is there is no number of 64 bits")
        _check_address(self.access == "fetch", self.address)


def _check_address(fetch: bool, address: int) -> None:
    """Raises ValueError for an address of no access that the guest makes: data is one aligned word,
    code a multiple of 4, and neither is in quadrants 1 and 2."""
    if not 0 <= address < 1 << 64 or address % (INSTRUCTION if fetch else WORD):
        raise ValueError(f"address is {address:#x}, which this access cannot have")
    if address >> 62 in (1, 2):
        raise ValueError(f"address is {address:#x}, which is translated in two stages")


# ---- files ----


class SavedAccess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An access in a file."""

    kind: str
    user: bool

    def read(self) -> Access:
        """The access; ValueError where there is none of its kind."""
        return Access(files.kind_named(Kind, self.kind), self.user)


class SavedMatrixCase(files.SavedMatrixCase, frozen=True, kw_only=True):
    """A case in a file, as `MatrixCase.save` writes it."""

    quadrant: int
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
    """Asks the question of a case in a new guest; that of an access in a layout under every key 0.

    program  a QEMU for POWER; the usual one unless given

    Raises LayoutError and SpaceError for a layout that cannot be built, MachineError for a guest
    that is lost.
    """
    if isinstance(case, MatrixCase):
        with Guest(program=program) as guest:
            return _of_matrix(guest, case)
    layout = parse(case.text, f"{case.layout}.toml")
    with Guest(ram_bytes=max(layout.ram, SMALLEST_RAM), program=program) as guest:
        return _of_layout(guest, layout, case)


def _of_layout(guest: Guest, layout: Layout, case: LayoutCase) -> Comparison:
    with built_in(guest, layout, case.levels, build, entries) as (memory, cpu, frames, window):
        if case.access is None:
            written = TableImage.of(memory, cpu.roots).holding(case.address)
            with guest.parked(state_of(cpu, window)) as monitor:
                return compare_tables(monitor, written)
        asked, comparison = alone(case.address, case.access), Comparison(PROBE)
        for amr, iamr in KEYS:
            keyed = replace(cpu, amr=amr, iamr=iamr)
            state = state_of(keyed, window)
            found = probes.ask_guest(guest, state, keyed, memory, frames, asked)
            comparison.compared += found.compared
            comparison.disagree(found.disagreed, found.disagreements)
            comparison.quirks += found.quirks
            comparison.not_comparable += found.not_comparable
            comparison.news += found.news
        return comparison


def _of_matrix(guest: Guest, case: MatrixCase) -> Comparison:
    chain, tried = Chain(guest, case.mode, case.quadrant), case.lanes
    cpu, ram = chain.cpu(case.control), Span.of(guest.ram.base, guest.ram.size)
    engine = departing(cpu, guest.engine.name, guest.version)
    rules = expected(cpu, tried, ram)
    by_engine = rules if engine is None else expected(engine, tried, ram)
    jobs = jobs_of(chain, tried, by_engine)
    results = guest.run(chain.state(cpu), jobs)
    agrees = bool(agreeing(tried, jobs, results, by_engine)[0])
    shown = [ROOT_LEAF.name] if rules.differs(by_engine)[0] else []
    said = expected_text(tried, by_engine, 0), observed_text(results[0], len(tried.words))
    return case.came_to(agrees, shown, *said)
