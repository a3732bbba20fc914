"""Disagreements about RISC-V as files, and the same questions asked again.

A case is self-contained: it carries the text of the layout, or the entries of the path with the
hart's control state.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import msgspec
import numpy as np

from harness.check import replay as files
from harness.check.compare import PROBE, Comparison
from harness.check.layouts import Layout, parse
from harness.check.replay import LayoutCase, SavedLayoutCase
from harness.check.riscv.cases import Stated
from harness.check.riscv.layouts import build
from harness.check.riscv.matrix.chain import ACCESSES, NONE_MISSING, Chain, Lanes
from harness.check.riscv.matrix.hart import MODES, Control, Hart
from harness.check.riscv.matrix.judged import expected
from harness.check.riscv.matrix.verdicts import agreeing, expected_text, jobs_of, observed_text
from harness.check.riscv.quirks import judged_of
from harness.check.riscv.validate import compare_one
from harness.check.riscv.window import entries
from harness.check.tables import TABLE_BYTES
from harness.check.validation import built_in
from harness.machine.errors import Misuse
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.qemu import program_for
from harness.paging.riscv.access import Kind
from harness.paging.riscv.cpu import PMLEN, Mode

ORACLES: Final = {PROBE: True, TABLE_BYTES: False}
"""Whom cases of layouts ask, and whether about an access."""


@dataclass(frozen=True, kw_only=True)
class MatrixCase(files.MatrixCase):
    """One case of the matrix, and the answers that it got.

    processor  of the hart
    missing    the level whose table is where no memory is; 255 for none
    access     one of `chain.ACCESSES`
    the rest   as in `Lanes`
    """

    ARCH: ClassVar = "riscv"

    processor: str
    control: Control
    missing: int
    user: bool
    sum: bool
    mxr: bool
    mprv: bool

    @classmethod
    def of(cls, hart: Hart, control: Control, made: Lanes, lane: int, **said: str) -> MatrixCase:
        """One lane of what was tried; `said` is the rest."""
        return cls(
            mode=hart.mode,
            processor=hart.processor,
            control=control,
            words=tuple(made.words[:, lane].tolist()),
            missing=int(made.missing[lane]),
            address=int(made.address[lane]),
            access=ACCESSES[int(made.access[lane])],
            user=bool(made.user[lane]),
            sum=bool(made.sum[lane]),
            mxr=bool(made.mxr[lane]),
            mprv=bool(made.mprv[lane]),
            **said,
        )

    @property
    def lanes(self) -> Lanes:
        """The case as the only lane."""
        return Lanes(
            words=np.array(self.words, np.uint64)[:, None],
            missing=np.array([self.missing], np.uint8),
            address=np.array([self.address], np.uint64),
            access=np.array([ACCESSES.index(self.access)], np.uint8),
            user=np.array([self.user]),
            sum=np.array([self.sum]),
            mxr=np.array([self.mxr]),
            mprv=np.array([self.mprv]),
        )

    def check(self) -> None:
        """Raises ValueError for what no hart can be asked."""
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; it is one of {', '.join(MODES)}")
        mode, levels = Mode(self.mode), Hart(self.mode, svnapot=False).levels
        if len(self.words) != levels:
            raise ValueError(f"words are {len(self.words)}, and {self.mode} has {levels} levels")
        for name, values in (("words", self.words), ("address", (self.address,))):
            if not all(0 <= value < 1 << mode.xlen for value in values):
                raise ValueError(f"{name}: what is there is no number of {mode.xlen} bits")
        if self.missing not in (*range(levels), NONE_MISSING):
            raise ValueError(f"missing is {self.missing}, which is no level, nor {NONE_MISSING}")
        if self.access not in ACCESSES:
            raise ValueError(f"access is {self.access!r}; it is one of {', '.join(ACCESSES)}")
        for name in ("pmm_s", "pmm_u"):
            if getattr(self.control, name) not in PMLEN:
                raise ValueError(f"control.{name} is {getattr(self.control, name)}")
        if "\0" in self.processor:
            raise ValueError("processor has a character that no name has")
        _check_access(self.access == "fetch", self.mprv, self.address, mode.xlen)


def _check_access(fetch: bool, mprv: bool, address: int, xlen: int) -> None:
    """Raises ValueError for an access that the guest does not make: data is one aligned word, code
    has no odd address, and MPRV is not for fetches."""
    if fetch and mprv:
        raise ValueError("a fetch is not made by MPRV")
    if address % (2 if fetch else xlen // 8):
        raise ValueError(f"address is {address:#x}, which this access cannot have")


# ---- files ----


class SavedAccess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An access in a file."""

    kind: str
    user: bool
    sum: bool
    mxr: bool
    mprv: bool

    def read(self) -> Stated:
        """The access; ValueError where there is none of its kind."""
        return Stated(files.kind_named(Kind, self.kind), self.user, self.sum, self.mxr, self.mprv)


class SavedMatrixCase(files.SavedMatrixCase, frozen=True, kw_only=True):
    """A case in a file, as `MatrixCase.save` writes it."""

    processor: str
    missing: int
    user: bool
    sum: bool
    mxr: bool
    mprv: bool

    def read(self) -> MatrixCase:
        """The case; ValueError where there is none such."""
        return self.read_as(MatrixCase, Control)


def saved(path: Path) -> LayoutCase | MatrixCase:
    """The case in a file, of whichever kind; CaseError where it cannot be read or holds none."""
    form = SavedLayoutCase[SavedAccess] | SavedMatrixCase
    found: LayoutCase | MatrixCase = files.saved_as(path, form, ORACLES, _checked)
    return found


def _checked(case: LayoutCase) -> LayoutCase:
    """The case; ValueError for what no hart can be asked."""
    xlen = Mode(case.mode).xlen
    if not 0 <= case.address < 1 << xlen:
        raise ValueError(f"address is {case.address:#x}, which the mode does not have")
    if case.access is not None:
        _check_access(case.access.kind is Kind.FETCH, case.access.mprv, case.address, xlen)
    return case


# ---- asked again ----


def replay(case: LayoutCase | MatrixCase, program: str | None = None) -> Comparison:
    """Asks the question of a case in a new guest.

    program  a QEMU for 64 bits, beside which lies that for 32; the usual ones unless given

    Raises LayoutError and SpaceError for a layout that cannot be built, Misuse where the question
    cannot be asked here, MachineError for a guest that is lost.
    """
    xlen = Mode(case.mode).xlen
    program = program_for(xlen, program)
    if isinstance(case, MatrixCase):
        with Guest(xlen, cpu=case.processor or None, program=program) as guest:
            return _of_matrix(guest, case)
    layout = parse(case.text, f"{case.layout}.toml")
    with Guest(xlen, ram_bytes=layout.ram, program=program) as guest:
        return _of_layout(guest, layout, case)


def _of_layout(guest: Guest, layout: Layout, case: LayoutCase) -> Comparison:
    with built_in(guest, layout, case.levels, build, entries) as built:
        return compare_one(guest, built, case.address, case.access)


def _of_matrix(guest: Guest, case: MatrixCase) -> Comparison:
    hart = Hart.of(case.mode, guest.info, case.processor)
    reason = case.control.lacks(hart)
    if reason is not None:
        raise Misuse(f"the case cannot be replayed: {reason}")
    chain = Chain(guest, hart.format)
    cpu, made = hart.cpu(case.control, chain.root), case.lanes
    rules = expected(hart, cpu, made)
    quirks = judged_of(guest.engine.name, guest.version)
    by_engine = expected(hart, cpu, made, quirks)
    jobs = jobs_of(chain, made, by_engine)
    results = guest.run(chain.state(cpu), jobs)
    agrees = bool(agreeing(chain, made, jobs, results, by_engine)[0])
    shown = list[str]()
    if rules.differs(by_engine)[0]:
        alone = ((one.name, expected(hart, cpu, made, [one])) for one in quirks)
        shown = [name for name, found in alone if rules.differs(found)[0]]
    said = expected_text(made, by_engine, 0), observed_text(results[0], len(made.words))
    return case.came_to(agrees, shown, *said)
