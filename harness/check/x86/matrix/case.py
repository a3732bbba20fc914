"""A case of the matrix as a file, and the same question asked again.

It carries all that was asked, the entries as raw words included, so that it can be replayed
on another machine and after the declaration of the matrix has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from harness.check import marks
from harness.check import replay as files
from harness.check.compare import PROBE, Comparison, Disagreement
from harness.check.keys import in_units
from harness.check.replay import CaseError
from harness.check.typed import Number, decode, made
from harness.check.x86.cases import AC
from harness.check.x86.matrix import chain as chains
from harness.check.x86.matrix import sequence
from harness.check.x86.matrix.chain import Chain, Lanes, Question
from harness.check.x86.matrix.rig import Batch, Rig, Verdicts, guest_of
from harness.check.x86.matrix.sequence import SequenceBatch
from harness.check.x86.matrix.stage import LEGACY_WINDOW, MODES, WINDOW_KEY, Control, Model, Step
from harness.check.x86.replay import Case, SavedAccess, SavedCase
from harness.check.x86.verdicts import expected_text, observed_text
from harness.check.x86.window import with_pdptes
from harness.machine.errors import Misuse
from harness.machine.machine import dotted
from harness.machine.ram import TABLE_ARENA
from harness.machine.x86.engines import why_long_mode_only
from harness.machine.x86.guest import MachineInfo
from harness.machine.x86.registry import engine_named
from harness.paging.address import Physical, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.walk import Walk, walk
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import LEGACY_SPAN, WIDTHS, Cpu, Cr4, Mode, reserved_in_pdpte
from harness.paging.x86.formats import KEYS, PDPTE_BYTES, PDPTES, P

KIND = "matrix"
"""What a case file says of itself: a question about the entries of one path."""


@dataclass(frozen=True)
class AskedAccess:
    """One access through a path of given entries.

    words     the entries, from level 0 up
    slots     where they are, physical addresses
    user      whether user mode is the cause, as it can be of an implicit access
    wruss     whether the supervisor makes the user's access, which WRUSS does
    branch    whether RET or CALL makes it
    changed   the bits of a control register that are changed before, if `flush` is one
    width     bytes that are accessed; 1 also says that the code fetched is a single byte
    page      the level whose frame the entries lead to
    backed    whether that frame has memory behind it
    flush     how translations are dropped before: one of `FLUSHES`
    pdpte     what is loaded into a PDPTE register before; None where they stay as they are
    register  the number of that register
    """

    control: Control
    words: tuple[int, ...]
    slots: tuple[int, ...]
    address: int
    access: Access
    user: bool
    ac: bool
    width: int
    page: int
    backed: bool
    flush: str
    pdpte: int | None
    register: int
    wruss: bool
    branch: bool
    changed: int

    @classmethod
    def of(cls, question: Question, control: Control, lane: int) -> AskedAccess:
        """One lane of a question."""
        question = question.take(np.array([lane]))
        lanes = question.lanes
        user, implicit = bool(lanes.user[0]), bool(lanes.implicit[0])
        words = tuple(lanes.words[:, 0].tolist())
        return cls(
            control=control,
            words=words,
            slots=tuple(reversed(question.jobs["where"][0, : len(words)].tolist())),
            address=int(lanes.address[0]),
            access=Access(Kind(int(lanes.kind[0])), user and not implicit, implicit),
            user=user,
            ac=bool(lanes.ac[0]),
            width=int(lanes.width[0]),
            page=int(lanes.page[0]),
            backed=bool(lanes.backed[0]),
            flush=chains.FLUSHES[int(lanes.flush[0])],
            pdpte=next(iter(lanes.pdpte[:, 0].tolist()), None),
            register=next(iter(lanes.register[:, 0].tolist()), 0),
            wruss=bool(lanes.wruss[0]),
            branch=bool(lanes.branch[0]),
            changed=int(lanes.changed[0]),
        )

    @property
    def lanes(self) -> Lanes:
        """The access as the only lane."""
        loaded = [] if self.pdpte is None else [self.pdpte]
        return Lanes(
            words=np.array(self.words, np.uint64)[:, None],
            address=np.array([self.address], np.uint64),
            kind=np.array([self.access.kind], np.uint8),
            user=np.array([self.user]),
            wruss=np.array([self.wruss]),
            branch=np.array([self.branch]),
            changed=np.array([self.changed], np.uint64),
            implicit=np.array([self.access.implicit]),
            ac=np.array([self.ac]),
            width=np.array([self.width], np.uint8),
            page=np.array([self.page], np.uint8),
            backed=np.array([self.backed]),
            flush=np.array([chains.FLUSHES.index(self.flush)], np.uint8),
            pdpte=np.array(loaded, np.uint64)[:, None],
            register=np.full((len(loaded), 1), self.register, np.uint8),
        )

    def written(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(AskedAccess)},
            "control": asdict(self.control),
            "words": [f"{word:#x}" for word in self.words],
            "slots": [f"{slot:#x}" for slot in self.slots],
            "address": f"{self.address:#x}",
            "changed": f"{self.changed:#x}",
            "access": {**asdict(self.access), "kind": self.access.kind.name.lower()},
            "pdpte": None if self.pdpte is None else f"{self.pdpte:#x}",
        }

    def check(self, model: Model) -> None:
        """Raises ValueError for what cannot be asked of the processor."""
        if model.maxphyaddr not in WIDTHS:  # which 32-bit paging does not ask
            raise ValueError(f"maxphyaddr is {model.maxphyaddr}, not {WIDTHS[0]} to {WIDTHS[-1]}")
        if model.mode not in MODES or not len(self.words) == len(self.slots) == model.levels:
            raise ValueError(f"mode {model.mode!r} with {len(self.words)} entries")
        size = model.format.entry_bytes
        # A range looks through all its numbers for one that is of a subclass of int, as these are.
        first, end = TABLE_ARENA.start, TABLE_ARENA.stop
        if not all(first <= slot < end and slot % size == 0 for slot in self.slots):
            raise ValueError("an entry is not where tables have one")
        if len(set(self.slots)) < len(self.slots):
            raise ValueError("two entries are in the same place")
        bits = 8 * size
        if not all(0 <= word < 1 << bits for word in self.words):
            raise ValueError(f"an entry is no number of {bits} bits")
        if not 0 <= self.address < (1 << 64 if model.long else LEGACY_SPAN.size):
            raise ValueError(f"there is no address {self.address:#x} in mode {model.mode}")
        if any(self.address in window for window in model.windows):
            raise ValueError(f"{self.address:#x} is an address of the window's")
        if self.width not in (1, marks.WORD // 2, marks.WORD):
            raise ValueError(f"width {self.width}")
        if self.page not in model.format.page_levels():
            raise ValueError(f"no page is at level {self.page}")
        if self.address % self.width:
            raise ValueError(f"{self.address:#x} is not a multiple of the width, {self.width}")
        if self.flush not in chains.FLUSHES:
            raise ValueError(f"flush {self.flush!r}")
        if not 0 <= self.changed < 1 << (64 if model.long else 32):
            raise ValueError(f"no control register has the bits {self.changed:#x}")
        if self.flush in chains.CHANGES and self.access.kind is not Kind.READ:
            raise ValueError("a control register is changed before a read")
        for keys in (self.control.pkru, self.control.pkrs):
            if not 0 <= keys < 1 << 2 * KEYS:
                raise ValueError(f"PKRU or PKRS is {keys:#x}")
        if self.control.pkrs & WINDOW_KEY:
            raise ValueError(f"PKRS {self.control.pkrs:#x} denies the stub its own pages")
        if self.control.lass and not model.lass:
            raise ValueError("CR4.LASS on a processor without LASS")
        self._check_pdpte(model)
        self._check_shadow(model)

    def _check_shadow(self, model: Model) -> None:
        shadow = self.access.kind.shadow
        if shadow and not (model.shadow_stacks and self.control.cet):
            raise ValueError("a shadow-stack access without shadow stacks")
        if shadow and not model.long and (not self.user or self.branch):
            raise ValueError(f"no such shadow-stack access is made in mode {model.mode}")
        if self.control.cet and not (model.shadow_stacks and self.control.wp):
            raise ValueError("CR4.CET without shadow stacks and CR0.WP")
        if self.wruss and not (self.access.kind is Kind.SHADOW_WRITE and self.user):
            raise ValueError("WRUSS is a user's write to a shadow stack")
        call = self.access.kind is Kind.SHADOW_WRITE and self.user
        if self.branch and (self.wruss or not shadow or call):
            raise ValueError("RET reads a shadow stack, and the supervisor's CALL writes to one")

    def _check_pdpte(self, model: Model) -> None:
        if self.pdpte is None:
            return
        if Mode(model.mode) is not Mode.PAE or not 0 <= self.pdpte < 1 << 64:
            raise ValueError(f"PDPTE {self.pdpte:#x} in mode {model.mode}")
        size = LEGACY_SPAN.size // PDPTES
        if self.register not in range(PDPTES) or self.register * size in LEGACY_WINDOW:
            raise ValueError(f"PDPTE register {self.register}")


@dataclass(frozen=True, kw_only=True)
class MatrixCase(AskedAccess):
    """The access that disagrees, and the answers that it got.

    values   of the case, axis by axis, as the matrix prints it
    earlier  the accesses before it in the same case.  Between them nothing is flushed but as each
             says, and no entry is written: all words are those before the first
    """

    engine: str
    qemu: str
    values: str
    model: Model
    expected: str
    observed: str
    earlier: tuple[AskedAccess, ...] = ()

    @classmethod
    def of_batch(
        cls,
        rig: Rig,
        model: Model,
        steps: tuple[AskedAccess, ...],
        batch: Batch,
        verdicts: Verdicts,
        lane: int,
        values: str,
    ) -> MatrixCase:
        """One lane of a batch, which is the last of the steps."""
        return cls(
            **{field.name: getattr(steps[-1], field.name) for field in fields(AskedAccess)},
            engine=rig.guest.engine.name,
            qemu=dotted(rig.guest.version),
            values=values,
            model=model,
            expected=expected_text(verdicts.rules, lane, bool(verdicts.held[lane])),
            observed=_observed(batch, verdicts, lane),
            earlier=steps[:-1],
        )

    @property
    def steps(self) -> tuple[AskedAccess, ...]:
        """All that is asked, in its order."""
        return (*self.earlier, self)

    @property
    def title(self) -> str:
        """What was asked of whom, for people."""
        return f"{self.engine}, {self.values}"

    @property
    def mode(self) -> str:
        """The mode of paging."""
        return self.model.mode

    @property
    def disagreement(self) -> Disagreement:
        """The case as people are shown it, with the walk through its entries."""
        return Disagreement(
            oracle=PROBE,
            address=self.address,
            access=self.access,
            flags=AC if self.ac else frozenset(),
            expected=self.expected,
            observed=self.observed,
            walk=_walk(self),
        )

    def save(self, directory: Path) -> Path:
        """Writes the case to a file whose name says what it is; OSError where that fails."""
        return files.write(directory, f"matrix {self.engine} {self.values}", self._object())

    def _object(self) -> dict[str, Any]:
        return {
            "case": KIND,
            "engine": self.engine,
            "qemu": self.qemu,
            "values": self.values,
            "model": asdict(self.model),
            "earlier": [asked.written() for asked in self.earlier],
            **self.written(),
            "expected": self.expected,
            "observed": self.observed,
        }

    def check_all(self) -> None:
        """Raises ValueError for a sequence that no machine can be asked."""
        for asked in self.steps:
            asked.check(self.model)
        if len({asked.control for asked in self.steps}) > 2:
            raise ValueError("a sequence has two control states at most")
        if len({asked.slots for asked in self.steps}) > 2:
            raise ValueError("a sequence has two paths at most")
        if self.steps[0].flush == "none":
            raise ValueError("nothing is flushed before the first access")
        if self.earlier and any(asked.pdpte is not None for asked in self.steps):
            raise ValueError("a sequence loads no PDPTEs")


LEVEL_CHANGES: Final = {
    "la57": ("cr4", int(Cr4.LA57)),
    "la57-pse": ("cr4", int(Cr4.LA57 | Cr4.PSE)),
}
"""What was once the name of a flush: the control register, and which of its bits are changed."""


class SavedAskedAccess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An `AskedAccess` in a file, as `written` gives it."""

    control: dict[str, Any]
    words: tuple[Number, ...]
    slots: tuple[Number, ...]
    address: Number
    access: SavedAccess
    user: bool
    ac: bool
    width: int
    page: int
    backed: bool
    flush: str
    pdpte: Number | None
    register: int
    wruss: bool = False
    branch: bool = False
    changed: Number = Number(0)

    def asked(self) -> dict[str, Any]:
        """The values of the fields of `AskedAccess`; ValueError where there are none such."""
        flush, changed = LEVEL_CHANGES.get(self.flush, (self.flush, self.changed))
        return {
            **{field.name: getattr(self, field.name) for field in fields(AskedAccess)},
            "flush": flush,
            "changed": changed,
            "control": made(Control, self.control, "control"),
            "access": self.access.read(Kind),
        }


class SavedMatrixCase(SavedAskedAccess, frozen=True, kw_only=True, tag_field="case", tag=KIND):
    """A case in a file, as `MatrixCase.save` writes it."""

    engine: str
    qemu: str
    values: str
    model: dict[str, Any]
    expected: str
    observed: str
    earlier: tuple[SavedAskedAccess, ...] = ()
    version: int = files.VERSION

    def read(self) -> MatrixCase:
        """The case; ValueError where there is none such."""
        case = MatrixCase(
            **self.asked(),
            engine=self.engine,
            qemu=self.qemu,
            values=self.values,
            model=made(Model, self.model, "model"),
            expected=self.expected,
            observed=self.observed,
            earlier=tuple(AskedAccess(**one.asked()) for one in self.earlier),
        )
        case.check_all()
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


def replay(case: MatrixCase, *, program: str | None = None) -> Comparison:
    """Asks the question of a case in a new guest.

    Raises Misuse where it cannot be asked here, MachineError for a guest that is lost.
    """
    with guest_of(case.engine, case.model.guest, program) as guest:
        return replay_in(Rig(guest), case)


def replay_in(rig: Rig, case: MatrixCase) -> Comparison:
    """The same in a guest that may have answered other cases before."""
    check_replayable(case, rig.guest.info, why_long_mode_only(rig.guest))
    return _replayed(rig, case)


def check_replayable(case: MatrixCase, info: MachineInfo, long_mode_only: str | None) -> None:
    """Raises Misuse for a case that cannot be asked of a guest with this processor.

    long_mode_only  why the guest is lost outside long mode, None if it is not
    """
    reason = _another(case, info) or case.model.lacks(info)
    for asked in case.steps:
        reason = reason or asked.control.lacks(info)
    if reason is None and not case.model.long:
        reason = long_mode_only
    if reason is not None:
        raise Misuse(f"the case cannot be replayed: {reason}")


def _another(case: MatrixCase, info: MachineInfo) -> str | None:
    """Why a guest's processor is not that of the case, as a reason; None if it is."""
    chosen = engine_named(case.engine).processor(case.model.processor)
    if chosen is not None or case.model == case.model.on(info):
        return None
    wanted = " ".join(f"{name}={value}" for name, value in case.model.values().items())
    return f"{case.engine} cannot be the case's processor ({wanted})"


def _replayed(rig: Rig, case: MatrixCase) -> Comparison:
    """What comes of every step of a case."""
    whole, steps = Comparison(PROBE), case.steps
    for number, (batch, verdicts) in enumerate(_judged(rig, case), 1):
        whole.compared += 1
        whole.quirks += verdicts.comparison.quirks
        whole.news += verdicts.comparison.news
        if not verdicts.agree.all():
            asked = rig, case.model, steps[:number], batch, verdicts, 0, case.values
            whole.disagree(1, [MatrixCase.of_batch(*asked).disagreement])
    return whole


def _judged(rig: Rig, case: MatrixCase) -> Iterator[tuple[Batch, Verdicts]]:
    chain, steps = rig.chain(case.model), case.steps
    for asked in steps:
        if asked.page >= len(chain.data):
            size = in_units(chain.cpu.format.levels[asked.page].size)
            raise Misuse(f"the case cannot be replayed: this guest's memory has no room for {size}")
        if not case.earlier or asked.access.kind is Kind.FETCH:
            chain.put_code(asked.lanes.address, asked.lanes.width == 1)
    if not case.earlier:
        cpu = case.model.cpu(case.control, chain.cpu)
        question = chains.ask(rig.guest, chain, case.lanes, _is_first(chain, case))
        batch = rig.batch(chain, cpu, question)
        rig.start(batch)
        yield batch, rig.finish(batch)
        return
    first, controls = steps[0], list(dict.fromkeys(asked.control for asked in steps))
    ways = [
        Step(there=asked.slots != first.slots, then=asked.control != first.control)
        for asked in steps
    ]
    questions = sequence.ask(rig.guest, chain, ways, [asked.lanes for asked in steps])
    cpus = [case.model.cpu(control, chain.cpu) for control in controls]
    whole = SequenceBatch(chain, questions, cpus[0], cpus[-1])
    whole.start(rig)
    yield from whole.finish(rig)


def _is_first(chain: Chain, case: MatrixCase) -> bool:
    """Whether a case is the first access of a sequence: then its page is one of data and code."""
    leaf = case.model.format.levels[case.page].leaf
    assert leaf is not None
    return leaf.address_of(case.words[case.page]) == int(chain.mixed[case.page])


def _observed(batch: Batch, verdicts: Verdicts, lane: int) -> str:
    """What the guest saw of one lane, for people."""
    only = np.array([lane])
    question, result = batch.question.take(only), verdicts.results[lane]
    lanes = question.lanes
    kind, implicit = Kind(int(lanes.kind[0])), bool(lanes.implicit[0])
    before = int(question.placed[0])
    after = int(chains.data_after(question, verdicts.results[only])[0])
    found = after if kind.writes else int(result["data"])
    marked = verdicts.rules.reason[lane] == 0 and lanes.width[0] == marks.WORD and not implicit
    marked &= kind is not Kind.SHADOW_READ
    observed = observed_text(result, found, bool(marked), lanes.words[::-1, 0].tolist())
    if after != before:
        observed += f"; the data {before:#x} -> {after:#x}"
    if result["data"] and not result["completed"]:
        observed += f"; {int(result['data']):#x} was loaded"
    for pdpte in lanes.pdpte[:, 0].tolist():
        observed += f"; the PDPTE {pdpte:#x} -> {int(result['after'][question.last]):#x}"
    return observed


def tables(case: MatrixCase) -> tuple[BufferMemory, Cpu]:
    """The entries of a case in memory that holds nothing else, and the state to read them in: where
    its PDPTE cannot be loaded, that of a machine that reads PDPTEs at every walk."""
    memory = BufferMemory(np.zeros(len(TABLE_ARENA), np.uint8), TABLE_ARENA.start)
    cpu = case.model.cpu(case.control)
    for slot, word in zip(case.slots, case.words, strict=True):
        memory.store(Physical(slot), cpu.format.entry_bytes, word)
    top = case.slots[-1] & -cpu.format.table_bytes(cpu.levels - 1)
    cpu = replace(cpu, cr3=top, ac=case.ac)
    if cpu.mode is Mode.PAE:
        pdptes = [top | P] * PDPTES
        if case.pdpte is not None:
            pdptes[case.register] = case.pdpte
            if reserved_in_pdpte(case.pdpte, cpu.maxphyaddr):
                cpu = replace(cpu, pdptes_checked=cpu.pdpte.reserved_mask)
        nowhere_else = memory.span.last + 1 - PDPTES * PDPTE_BYTES
        cpu = with_pdptes(memory, replace(cpu, cr3=nowhere_else), pdptes)
    return memory, cpu


def _walk(case: MatrixCase) -> Walk | None:
    """The walk through the entries of a case; None where there is no root for its address."""
    memory, cpu = tables(case)
    if cpu.pdptes_checked is not None:
        return None
    found = root_for(cpu, Virtual(case.address))
    return None if found is None else walk(memory, found, Virtual(case.address))
