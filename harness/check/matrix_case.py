"""A case of the matrix as a file, and the same question asked again.

It carries all that was asked, the entries as raw words included, so that it can be replayed
on another machine and after the declaration of the matrix has changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from harness.check import chain as chains
from harness.check import marks
from harness.check.chain import Lanes
from harness.check.compare import Comparison, Disagreement
from harness.check.replay import CaseError
from harness.check.rig import Batch, Rig, Verdicts
from harness.check.stage import MODES, Control, Model
from harness.check.verdicts import expected_text, observed_text
from harness.machine.errors import Misuse
from harness.machine.guest import Guest
from harness.machine.ram import LARGEST_RAM, TABLE_ARENA
from harness.paging.address import Physical, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.walk import Walk, walk
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import root_for

KIND = "matrix"
"""What a case file says of itself: a question about the entries of one path."""


@dataclass(frozen=True)
class MatrixCase:
    """One access through a path of given entries, and the answers that it got.

    values  of the case, axis by axis, as the matrix prints it
    words   the entries, from level 0 up
    slots   where they are, physical addresses
    width   bytes that are read or written; 1 also says that the code fetched is a single byte
    page    the level whose frame the entries lead to
    backed  whether that frame has memory behind it
    """

    engine: str
    qemu: str
    values: str
    model: Model
    control: Control
    words: tuple[int, ...]
    slots: tuple[int, ...]
    address: int
    access: Access
    ac: bool
    width: int
    page: int
    backed: bool
    expected: str
    observed: str

    @classmethod
    def of(
        cls,
        rig: Rig,
        model: Model,
        control: Control,
        batch: Batch,
        verdicts: Verdicts,
        lane: int,
        values: str,
    ) -> MatrixCase:
        """One lane of a batch."""
        lanes, result = batch.question.lanes, verdicts.results[lane]
        kind = Kind(int(lanes.kind[lane]))
        words = tuple(lanes.words[:, lane].tolist())
        found = int(result["after"][len(words)] if kind is Kind.WRITE else result["data"])
        marked = verdicts.rules.reason[lane] == 0 and lanes.width[lane] == marks.WORD
        return cls(
            rig.guest.engine.name,
            ".".join(map(str, rig.guest.version)),
            values,
            model,
            control,
            words,
            tuple(reversed(batch.question.jobs["where"][lane, : len(words)].tolist())),
            int(lanes.address[lane]),
            Access(kind, bool(lanes.user[lane])),
            bool(lanes.ac[lane]),
            int(lanes.width[lane]),
            int(lanes.page[lane]),
            bool(lanes.backed[lane]),
            expected_text(verdicts.rules, lane),
            observed_text(result, found, bool(marked), reversed(words)),
        )

    @property
    def lanes(self) -> Lanes:
        """The case as the only lane."""
        return Lanes(
            np.array(self.words, np.uint64)[:, None],
            np.array([self.address], np.uint64),
            np.array([self.access.kind], np.uint8),
            np.array([self.access.user]),
            np.array([self.ac]),
            np.array([self.width], np.uint8),
            np.array([self.page], np.uint8),
            np.array([self.backed]),
        )

    @property
    def title(self) -> str:
        """What was asked of whom, for people."""
        return f"{self.engine}, {self.values}"

    def save(self, directory: Path) -> Path:
        """Writes the case to a file whose name says what it is; OSError where that fails."""
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"matrix-{self.engine}-{self.values}")[-200:]
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name.strip('-')}.json"
        path.write_text(json.dumps(self._object(), indent=2) + "\n")
        return path

    def _object(self) -> dict[str, Any]:
        return {
            "case": KIND,
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "model": asdict(self.model),
            "control": asdict(self.control),
            "words": [f"{word:#x}" for word in self.words],
            "slots": [f"{slot:#x}" for slot in self.slots],
            "address": f"{self.address:#x}",
            "access": {"kind": self.access.kind.name.lower(), "user": self.access.user},
        }

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> MatrixCase:
        """The case in the object that `save` wrote; CaseError where it is none."""
        try:
            access = saved["access"]
            values = {
                **saved,
                "model": Model(**saved["model"]),
                "control": Control(**saved["control"]),
                "words": tuple(int(word, 0) for word in saved["words"]),
                "slots": tuple(int(slot, 0) for slot in saved["slots"]),
                "address": int(saved["address"], 0),
                "access": Access(Kind[access["kind"].upper()], access["user"]),
            }
            case = cls(**{field.name: values[field.name] for field in fields(cls)})
            case._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CaseError(f"this is no case of the matrix: {error!r}") from None
        return case

    def _check(self) -> None:
        if self.model.mode not in MODES or not (
            len(self.words) == len(self.slots) == self.model.levels
        ):
            raise ValueError(f"mode {self.model.mode!r} with {len(self.words)} entries")
        if not all(slot in TABLE_ARENA for slot in self.slots):
            raise ValueError("an entry is not where tables are")
        if not all(0 <= word < 1 << 64 for word in (*self.words, self.address)):
            raise ValueError("an entry or the address is no number of 64 bits")
        if self.width not in (1, marks.WORD) or not 0 <= self.page < len(self.words):
            raise ValueError(f"width {self.width}, page {self.page}")


def replay(case: MatrixCase, *, qemu: str = "qemu-system-x86_64") -> Comparison:
    """Asks the question of a case in a new guest.

    Raises Misuse where it cannot be asked here, MachineError for a guest that is lost.
    """
    processor = case.model.processor if case.engine == "tcg" else None
    with Guest(case.engine, ram_bytes=LARGEST_RAM, cpu=processor, qemu=qemu) as guest:
        lacking = [*filter(None, [case.model.lacks(guest.info)]), *case.control.lacks(guest.info)]
        if lacking:
            raise Misuse(f"the case cannot be replayed: the guest lacks {', '.join(lacking)}")
        rig = Rig(guest)
        chain = rig.chain(case.model)
        chain.put_code(case.lanes.address, case.lanes.width == 1)
        cpu = case.model.cpu(case.control, chain.cpu.cr3)
        batch = rig.batch(chain, cpu, chains.ask(guest, chain, case.lanes), None)
        rig.start(batch)
        verdicts = rig.finish(batch)
        again = MatrixCase.of(rig, case.model, case.control, batch, verdicts, 0, case.values)
    comparison = verdicts.comparison
    comparison.compared = 1
    if not verdicts.agree.all():
        comparison.disagree(1, [disagreement(again)])
    return comparison


def disagreement(case: MatrixCase) -> Disagreement:
    """The case as people are shown it, with the walk through its entries."""
    return Disagreement(
        oracle="probe",
        address=case.address,
        access=case.access,
        ac=case.ac,
        expected=case.expected,
        observed=case.observed,
        walk=_walk(case),
    )


def _walk(case: MatrixCase) -> Walk | None:
    """The walk through the entries of a case; None where there is no root for its address."""
    memory = BufferMemory(np.zeros(len(TABLE_ARENA), np.uint8), TABLE_ARENA.start)
    format = case.model.cpu(case.control).format
    for slot, word in zip(case.slots, case.words, strict=True):
        memory.store(Physical(slot), format.entry_bytes, word)
    root = case.slots[-1] & -format.table_bytes(len(case.slots) - 1)
    found = root_for(case.model.cpu(case.control, root), Virtual(case.address))
    return None if found is None else walk(memory, found, Virtual(case.address))
