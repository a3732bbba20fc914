"""Disagreements about arm64 as files, and the same questions asked again.

A case is self-contained: it carries the text of the layout, or the descriptors of the path with the
control state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import msgspec
import numpy as np

from harness.check import replay as files
from harness.check.arm64 import at
from harness.check.arm64.cases import Stated
from harness.check.arm64.layouts import build, features_of
from harness.check.arm64.matrix.chain import ACCESSES, NOWHERE, Chain, Lanes
from harness.check.arm64.matrix.families import lengths
from harness.check.arm64.matrix.judged import Arm64Quirk, Expected, expected
from harness.check.arm64.matrix.setting import MODES, Control, Setting
from harness.check.arm64.matrix.verdicts import agreeing, expected_text, jobs_of, observed_text
from harness.check.arm64.quirks import judged_of
from harness.check.arm64.validate import compare_one
from harness.check.arm64.window import entries
from harness.check.compare import PROBE, Comparison
from harness.check.keys import instead
from harness.check.layouts import Layout, parse
from harness.check.replay import LayoutCase, SavedLayoutCase
from harness.check.tables import TABLE_BYTES
from harness.check.translations import GVA2GPA
from harness.check.validation import built_in
from harness.machine.arm64.guest import Guest
from harness.machine.errors import Misuse
from harness.paging.arm64.access import Kind
from harness.paging.arm64.cpu import OUTPUT_BITS, Features
from harness.paging.arm64.formats import GRANULES

ORACLES: Final = {PROBE: True, at.AT: True, GVA2GPA: False, TABLE_BYTES: False}
"""Whom cases of layouts ask, and whether about an access."""

WORD: Final = 8
INSTRUCTION: Final = 4


@dataclass(frozen=True, kw_only=True)
class MatrixCase(files.MatrixCase):
    """One case of the matrix, and the answers that it got.

    bits          of the addresses in the half that is tested
    access        one of `chain.ACCESSES`
    el0, pan, uao, size as in `Lanes`
    """

    ARCH: ClassVar = "arm64"

    bits: int
    control: Control
    el0: bool
    pan: bool
    uao: bool
    size: int = WORD

    @classmethod
    def of(
        cls, setting: Setting, control: Control, made: Lanes, lane: int, **said: str
    ) -> MatrixCase:
        """One lane of what was tried; `said` is the rest."""
        kinds = {kind: name for name, kind in ACCESSES.items()}
        return cls(
            mode=setting.mode,
            bits=setting.address_bits,
            control=control,
            words=tuple(made.words[:, lane].tolist()),
            address=int(made.address[lane]),
            access=kinds[Kind(int(made.kind[lane]))],
            el0=bool(made.el0[lane]),
            pan=bool(made.pan[lane]),
            uao=bool(made.uao[lane]),
            size=int(made.size[lane]),
            **said,
        )

    @property
    def lanes(self) -> Lanes:
        """The case as the only lane."""
        return Lanes(
            words=np.array(self.words, np.uint64)[:, None],
            address=np.array([self.address], np.uint64),
            kind=np.array([ACCESSES[self.access]], np.uint8),
            el0=np.array([self.el0]),
            pan=np.array([self.pan]),
            uao=np.array([self.uao]),
            size=np.array([self.size], np.uint8),
        )

    def check(self) -> None:
        """Raises ValueError for what no processor can be asked."""
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; it is one of {', '.join(MODES)}")
        widest = Setting(self.mode, MODES[self.mode].bits, Features())
        if self.bits not in (some := lengths(widest)):
            raise ValueError(f"bits is {self.bits}; {self.mode} has {some[0]} to {some[-1]}")
        levels = Setting(self.mode, self.bits, Features()).levels
        if len(self.words) != levels:
            raise ValueError(f"words are {len(self.words)}, and {self.bits} bits have {levels}")
        for name, values in (("words", self.words), ("address", (self.address,))):
            if not all(0 <= value < 1 << 64 for value in values):
                raise ValueError(f"{name}: what is there is no number of 64 bits")
        if self.access not in ACCESSES:
            raise ValueError(f"access is {self.access!r}; it is one of {', '.join(ACCESSES)}")
        if self.control.ips not in OUTPUT_BITS:
            raise ValueError(f"control.ips is {self.control.ips}, which IPS cannot say")
        if self.control.beyond not in (0, *NOWHERE):
            raise ValueError(f"control.beyond is {self.control.beyond}, and memory may be there")
        if self.control.beside not in GRANULES:
            raise ValueError(
                f"control.beside is {(given := self.control.beside)!r}: {instead(given, GRANULES)}"
            )
        if self.size not in (WORD // 2, WORD):
            raise ValueError(f"size is {self.size}; data has {WORD // 2} or {WORD} bytes")
        if self.access == "fetch" or self.size == WORD:
            _check_address(self.access == "fetch", self.address)
        elif self.address % WORD > WORD // 2:
            raise ValueError(f"address is {self.address:#x}, whose data is in two words")


def _check_address(fetch: bool, address: int) -> None:
    """Raises ValueError for an address of no access that the guest makes: data is one aligned word,
    code a multiple of 4."""
    if not 0 <= address < 1 << 64 or address % (INSTRUCTION if fetch else WORD):
        raise ValueError(f"address is {address:#x}, which this access cannot have")


# ---- files ----


class SavedAccess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An access in a file."""

    kind: str
    el0: bool
    pan: bool
    uao: bool

    def read(self) -> Stated:
        """The access; ValueError where there is none of its kind."""
        return Stated(files.kind_named(Kind, self.kind), self.el0, self.pan, self.uao)


class SavedMatrixCase(files.SavedMatrixCase, frozen=True, kw_only=True):
    """A case in a file, as `MatrixCase.save` writes it."""

    bits: int
    el0: bool
    pan: bool
    uao: bool
    size: int = WORD

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
    access: Stated | None = case.access
    _check_address(access is not None and access.kind is Kind.FETCH, case.address)
    if access is not None and case.oracle == at.AT:
        if access.kind not in at.KINDS:
            raise ValueError(f"AT is not asked about {access.kind.name.lower()}")
        if access.el0 and access.pan:
            raise ValueError("AT has no PAN for EL0")
    return case


# ---- asked again ----


def replay(case: LayoutCase | MatrixCase, program: str | None = None) -> Comparison:
    """Asks the question of a case in a new guest.

    program  a QEMU for arm64; the usual one unless given

    Raises LayoutError and SpaceError for a layout that cannot be built, Misuse where the question
    cannot be asked here, MachineError for a guest that is lost.
    """
    if isinstance(case, MatrixCase):
        with Guest(program=program) as guest:
            return _of_matrix(guest, case)
    layout = parse(case.text, f"{case.layout}.toml")
    with Guest(ram_bytes=layout.ram, program=program) as guest:
        return _of_layout(guest, layout, case)


def _of_layout(guest: Guest, layout: Layout, case: LayoutCase) -> Comparison:
    with built_in(guest, layout, case.levels, build, entries) as built:
        return compare_one(guest, built, case.oracle, case.address, case.access)


def _of_matrix(guest: Guest, case: MatrixCase) -> Comparison:
    setting = Setting(case.mode, case.bits, features_of(guest.info))
    reason = case.control.lacks(setting.features)
    if reason is not None:
        raise Misuse(f"the case cannot be replayed: {reason}")
    chain, lanes = Chain(guest, setting), case.lanes
    cpu = chain.cpu(case.control)

    def by(some: Iterable[Arm64Quirk]) -> Expected:
        return expected(setting, case.control, cpu, lanes, some)

    quirks = judged_of(guest.engine.name, guest.version)
    rules, by_engine = by(()), by(quirks)
    jobs = jobs_of(chain, lanes, by_engine)
    results = guest.run(chain.state(case.control), jobs)
    agrees = bool(agreeing(chain, lanes, jobs, results, by_engine)[0])
    shown = [one.name for one in quirks if rules.differs(by([one]))[0]]
    said = expected_text(lanes, by_engine, 0), observed_text(results[0], len(lanes.words))
    return case.came_to(agrees, shown, *said)
