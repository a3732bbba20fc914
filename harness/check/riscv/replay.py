"""Disagreements about RISC-V as files, and the same questions asked again.

A case is self-contained: it carries the text of the layout, or the entries of the path with the
hart's control state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from harness.check import replay as files
from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.layouts import Layout, described, parse
from harness.check.replay import VERSION, CaseError
from harness.check.riscv import probes
from harness.check.riscv.cases import Cases, Stated
from harness.check.riscv.matrix.chain import ACCESSES, Chain, Lanes
from harness.check.riscv.matrix.hart import MODES, Control, Hart
from harness.check.riscv.matrix.judged import expected
from harness.check.riscv.matrix.verdicts import agreeing, expected_text, jobs_of, observed_text
from harness.check.riscv.quirks import judged_of
from harness.check.riscv.validate import built_in, state_of
from harness.check.tables import TABLE_BYTES, TableImage, compare_tables
from harness.check.typed import Number, decode
from harness.check.validation import SpaceReport
from harness.machine.errors import Misuse
from harness.machine.riscv.guest import Guest
from harness.machine.riscv.qemu import program_for
from harness.paging.riscv.access import Kind
from harness.paging.riscv.cpu import PMLEN, Mode

ARCH: Final = "riscv"
KIND, MATRIX = "layout", "matrix"
"""What a case file says of itself."""

_NO_LEVEL: Final = 255
"""In place of the level of a table that is missing."""


@dataclass(frozen=True)
class Case:
    """One question about a layout, and the answers that it got; fields as in `SpaceReport` and
    `Disagreement`."""

    layout: str
    text: str
    levels: int
    engine: str
    qemu: str
    oracle: str
    address: int
    access: Stated | None
    expected: str
    observed: str

    @classmethod
    def of(cls, space: SpaceReport, found: Disagreement) -> Case:
        """A disagreement about a space."""
        assert found.access is None or isinstance(found.access, Stated)
        return cls(
            space.layout.name,
            space.layout.text,
            space.levels,
            space.engine,
            space.qemu,
            found.oracle,
            found.address,
            found.access,
            found.expected,
            found.observed,
        )

    @property
    def question(self) -> str:
        """What was asked, for people."""
        return f"{self.oracle}: {f'{self.access} at ' if self.access else ''}{self.address:#x}"

    @property
    def mode(self) -> str:
        """The mode of translation."""
        return described(ARCH).modes[self.levels]

    @property
    def title(self) -> str:
        """What was asked of whom, for people."""
        return f"{self.layout}, {self.mode}, {self.engine}, {self.question}"

    def save(self, directory: Path) -> Path:
        """Writes the case to a file whose name says what it is; OSError where that fails."""
        access = None
        if self.access is not None:
            access = {**asdict(self.access), "kind": self.access.kind.name.lower()}
        content = {**vars(self), "address": f"{self.address:#x}", "access": access}
        title = f"{self.layout} {self.mode} {self.engine} {self.question}"
        return files.write(directory, title, {"arch": ARCH, "case": KIND, **content})


@dataclass(frozen=True)
class MatrixCase:
    """One case of the matrix, and the answers that it got.

    mode, processor  of the hart
    values           of the case, axis by axis, for people
    words            the entries of its path, from level 0 up
    missing          the level whose table is where no memory is; 255 for none
    access           one of `chain.ACCESSES`
    the rest         as in `Lanes`
    """

    mode: str
    processor: str
    control: Control
    values: str
    words: tuple[int, ...]
    missing: int
    address: int
    access: str
    user: bool
    sum: bool
    mxr: bool
    mprv: bool
    engine: str
    qemu: str
    expected: str
    observed: str

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

    @property
    def disagreement(self) -> Disagreement:
        """The same as people are shown it."""
        return Disagreement(PROBE, self.address, None, False, self.expected, self.observed)

    @property
    def title(self) -> str:
        """What was asked of whom, for people."""
        return f"{self.mode}, {self.engine}, {self.values}, at {self.address:#x}"

    def save(self, directory: Path) -> Path:
        """Writes the case to a file whose name says what it is; OSError where that fails."""
        content = {
            **vars(self),
            "control": asdict(self.control),
            "words": [f"{word:#x}" for word in self.words],
            "address": f"{self.address:#x}",
        }
        title = f"matrix {self.mode} {self.engine} {self.values} {self.address:#x}"
        return files.write(directory, title, {"arch": ARCH, "case": MATRIX, **content})

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
        if self.missing not in (*range(levels), _NO_LEVEL):
            raise ValueError(f"missing is {self.missing}, which is no level, nor {_NO_LEVEL}")
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
        kinds = {kind.name.lower(): kind for kind in Kind}
        if self.kind not in kinds:
            raise ValueError(f"access.kind is {self.kind!r}; it is one of {', '.join(kinds)}")
        return Stated(kinds[self.kind], self.user, self.sum, self.mxr, self.mprv)


class SavedCase(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="case", tag=KIND
):
    """A case in a file, as `Case.save` writes it."""

    arch: str
    layout: str
    text: str
    levels: int
    engine: str
    qemu: str
    oracle: str
    address: Number
    access: SavedAccess | None
    expected: str
    observed: str
    version: int = VERSION

    def read(self) -> Case:
        """The case; ValueError where there is none such."""
        if self.levels not in described(ARCH).modes:
            raise ValueError(f"levels is {self.levels}, and no mode has so many")
        if self.oracle not in (PROBE, TABLE_BYTES):
            raise ValueError(f"oracle is {self.oracle!r}: it is {PROBE}, or {TABLE_BYTES}")
        if (self.access is None) != (self.oracle != PROBE):
            raise ValueError(f"an access goes with the oracle {PROBE}, and with no other")
        xlen = Mode(described(ARCH).modes[self.levels]).xlen
        if not 0 <= self.address < 1 << xlen:
            raise ValueError(f"address is {self.address:#x}, which the mode does not have")
        access = None if self.access is None else self.access.read()
        if access is not None:
            _check_access(access.kind is Kind.FETCH, access.mprv, self.address, xlen)
        values = {field.name: getattr(self, field.name) for field in fields(Case)}
        return Case(**{**values, "access": access})


class SavedControl(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The control state in a file."""

    adue: bool
    pbmte: bool
    pmm_s: int
    pmm_u: int


class SavedMatrixCase(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="case", tag=MATRIX
):
    """A case in a file, as `MatrixCase.save` writes it."""

    arch: str
    mode: str
    processor: str
    control: SavedControl
    values: str
    words: tuple[Number, ...]
    missing: int
    address: Number
    access: str
    user: bool
    sum: bool
    mxr: bool
    mprv: bool
    engine: str
    qemu: str
    expected: str
    observed: str
    version: int = VERSION

    def read(self) -> MatrixCase:
        """The case; ValueError where there is none such."""
        values = {one.name: getattr(self, one.name) for one in fields(MatrixCase)}
        case = MatrixCase(**{**values, "control": Control(**msgspec.structs.asdict(self.control))})
        case.check()
        return case


def saved(path: Path) -> Case | MatrixCase:
    """The case in a file, of whichever kind; CaseError where it cannot be read or holds none."""
    text = files.content(path)
    try:
        files.check_version(text)
        found: Case | MatrixCase = decode(text, SavedCase | SavedMatrixCase).read()
    except ValueError as error:
        raise CaseError(f"{path} holds no case: {error}") from None
    return found


# ---- asked again ----


def replay(case: Case | MatrixCase, program: str | None = None) -> Comparison:
    """Asks the question of a case in a new guest.

    program  a QEMU for 64 bits, beside which lies that for 32; the usual ones unless given

    Raises LayoutError and SpaceError for a layout that cannot be built, Misuse where the question
    cannot be compared here, MachineError for a guest that is lost.
    """
    xlen = Mode(case.mode).xlen
    if isinstance(case, Case):
        layout = parse(case.text, f"{case.layout}.toml")
        guest = Guest(xlen, ram_bytes=layout.ram, program=program_for(xlen, program))
        with guest:
            comparison = _of_layout(guest, layout, case)
    else:
        with Guest(xlen, cpu=case.processor or None, program=program_for(xlen, program)) as guest:
            comparison = _of_matrix(guest, case)
    if not comparison.compared:
        reason = next(iter(comparison.not_comparable), "the layout has nothing there")
        raise Misuse(f"the case cannot be replayed: {reason}")
    return comparison


def _of_layout(guest: Guest, layout: Layout, case: Case) -> Comparison:
    with built_in(guest, layout, case.levels) as (memory, cpu, frames, window):
        state = state_of(cpu, window)
        if case.access is not None:
            asked = _cases([(case.address, case.access)])
            return probes.ask_guest(guest, state, cpu, memory, frames, asked)
        written = TableImage.of(memory, cpu.roots)
        table = np.uint64(case.address & -cpu.format.table_bytes(0))
        chosen = written.address == table
        one = TableImage(written.address[chosen], written.words[chosen])
        with guest.parked(state) as monitor:
            return compare_tables(monitor, one, cpu.format.entry_bytes)


def _cases(asked: Iterable[tuple[int, Stated]]) -> Cases:
    """Accesses at addresses, one a lane."""
    pairs = list(asked)
    columns = {
        name: np.array([getattr(access, name) for _, access in pairs])
        for name in ("user", "sum", "mxr", "mprv")
    }
    address = np.array([address for address, _ in pairs], np.uint64)
    return Cases(address, np.array([one.kind for _, one in pairs], np.uint8), **columns)


def _of_matrix(guest: Guest, case: MatrixCase) -> Comparison:
    hart = Hart.of(case.mode, guest.info, case.processor)
    reason = case.control.lacks(hart)
    if reason is not None:
        raise Misuse(f"the case cannot be replayed: {reason}")
    chain = Chain(guest, hart.cpu(Control(), 0).format)
    cpu, made = hart.cpu(case.control, chain.root), case.lanes
    rules = expected(hart, cpu, made)
    quirks = judged_of(guest.engine.name, guest.version)
    comparison = Comparison(PROBE, compared=1)
    by_engine = expected(hart, cpu, made, quirks)
    jobs = jobs_of(chain, made, by_engine)
    results = guest.run(chain.state(cpu), jobs)
    if agreeing(chain, made, jobs, results, by_engine)[0]:
        if rules.differs(by_engine)[0]:
            shown = [q for q in quirks if rules.differs(expected(hart, cpu, made, [q]))[0]]
            comparison.quirks.update(one.name for one in shown)
        return comparison
    told = Disagreement(
        PROBE,
        case.address,
        None,
        False,
        expected_text(made, by_engine, 0),
        observed_text(results[0], len(made.words)),
    )
    comparison.disagree(1, [told])
    return comparison
