"""Why an access faults, or what it does where it is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from harness.architectures import NAMES, has, module_of
from harness.inspect import architecture
from harness.inspect.remedy import Remedy
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.translation import Stage, Translation, is_backed, translate, unrooted
from harness.paging.address import Physical, Virtual
from harness.paging.format import Format
from harness.paging.memory import Mask, Memory, Words
from harness.paging.processor import Cpu


@dataclass(frozen=True)
class Explanation:
    """What an access comes to, and why.

    translation  of the address
    to_blame     the entries by which the rule denies the access, from the root down; none where it
                 is no entry's doing
    noted        the entries in which the machine notes the access, and the name of the bit that
                 it sets, or clears: A or D, or what takes their place
    remedies     what would let it pass, the likeliest to be meant first
    cpu          the CPU state by which it is so
    elsewhere    where the walk leads outside memory: what machines make of the access, by what they
                 read there
    otherwise    what else it comes to where what was assumed of the processor is not so
    pointer      what the address probably is that was never meant as one, a phrase; None where it
                 looks like any other, and where the access is allowed
    unrooted     the register without which it is not known, since it leads to the root
    """

    access: Any
    outcome: Any
    translation: Translation
    to_blame: tuple[Stage, ...]
    noted: tuple[tuple[Stage, str], ...]
    remedies: tuple[Remedy, ...]
    cpu: Any
    elsewhere: tuple[Elsewhere, ...] = ()
    otherwise: tuple[Otherwise, ...] = ()
    pointer: str | None = None
    unrooted: str | None = None

    @property
    def unknown(self) -> bool:
        """Whether it is not known, for want of an entry or a root that is not given."""
        return self.translation.unknown or self.unrooted is not None


@dataclass(frozen=True)
class Elsewhere:
    """What an access comes to on machines that read memory which is not there in one way.

    read  what it reads as: zeros or ones
    who   which machines do
    """

    read: str
    who: str
    outcome: Any


@dataclass(frozen=True)
class Otherwise:
    """What an access comes to on a processor that is not as it was assumed.

    assumed  what was assumed, as NAME=VALUE
    instead  what it is there, as a phrase
    """

    assumed: str
    instead: str
    outcome: Any


@dataclass(frozen=True)
class Reproduction:
    """A fault that was seen, next to what the tables give now.

    giving        the accesses that raise just this fault, with what they come to
    instead       what those accesses come to that raise such a fault, where none raises this one
    explanations  why that may be, the likeliest first; or how it is given, a sentence each
    unrooted      whether it is not known what the tables give, for want of a root
    depends       what decides whether they give it, a phrase: an entry that is not known
    """

    giving: tuple[Explanation, ...]
    instead: tuple[Explanation, ...]
    explanations: tuple[str, ...]
    unrooted: bool = False
    depends: str | None = None

    @property
    def unknown(self) -> bool:
        """Whether it is not known what the tables give, for want of a root or of a part of one."""
        cut = any(one.translation.is_cut for one in self.instead)
        return self.unrooted or self.depends is not None or (not self.giving and cut)


class Faults(Protocol):
    """What the module `fault` of each architecture makes of a fault that was seen.

    REPORTED    the options by which more is told of one than its code and the address
    told        what the fault says by itself: by the code as it was written, the address, the
                place of the instruction, and the accesses that are thought to have raised it, which
                tell whose it was where the code does not.  QuestionError for a code of no such
                fault
    reproduced  the snapshot with what the fault tells of the CPU besides, what the fault says, and
                whether the tables give it; by the code as it was written, the address, the place
                of the instruction, whether what Linux keeps is wanted, and the accesses that are
                thought to have raised it.  QuestionError for a code of no such fault
    """

    @property
    def REPORTED(self) -> tuple[str, ...]: ...  # noqa: N802
    def told(
        self, code: str, address: int | None, instruction: int | None, named: Sequence[Any], /
    ) -> Any: ...
    def reproduced(
        self,
        snapshot: Snapshot,
        code: str,
        address: Virtual,
        instruction: int | None,
        linux: bool,
        named: Sequence[Any],
        /,
    ) -> tuple[Snapshot, Any, Reproduction]: ...


def seen_of(cpu: Cpu) -> Faults:
    """What knows the faults of a CPU state."""
    return faults_of(cpu.architecture)


def faults_of(arch: str) -> Faults:
    """What knows the faults of an architecture."""
    found: Faults = module_of(arch, "inspect", "fault")
    return found


def told_everywhere(
    code: str, address: int | None, instruction: int | None
) -> dict[str, Any | QuestionError]:
    """What a fault says by itself, or why it is none, by the architectures that know any."""
    found: dict[str, Any | QuestionError] = {}
    for arch in NAMES:
        if has(arch, "inspect", "fault"):
            try:
                found[arch] = faults_of(arch).told(code, address, instruction, ())
            except QuestionError as error:
                found[arch] = error
    return found


class _Filled:
    """Memory of which what is not there reads as one byte throughout."""

    def __init__(self, memory: Memory, octet: int) -> None:
        self._memory, self._octet = memory, octet

    def load(self, address: Physical, size: int) -> int:
        """The word at an address, wherever it is."""
        word = self._memory.load(address, size)
        return int.from_bytes(bytes([self._octet]) * size, "little") if word is None else word

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many addresses."""
        words = [self.load(Physical(int(address)), size) for address in addresses]
        return np.array(words, np.uint64), None


def explain(snapshot: Snapshot, address: Virtual, access: Any, linux: bool = False) -> Explanation:
    """What an access to an address comes to, and if wanted what Linux keeps on the way.

    access  the `Access` of the snapshot's architecture

    Raises QuestionError for an address that is wider than the CPU's mode has them.
    """
    (found,) = explain_all(snapshot, address, (access,), linux)
    return found


def explain_all(
    snapshot: Snapshot, address: Virtual, accesses: Iterable[Any], linux: bool = False
) -> list[Explanation]:
    """The same of several accesses to one address, which is translated once for those that use the
    same one."""
    asked, found = architecture.of(snapshot.cpu), dict[Any, Translation]()
    explained = []
    for access in accesses:
        cpu = asked.using(snapshot.cpu, access)
        if cpu not in found:
            found[cpu] = translate(replace(snapshot, cpu=cpu), address, linux)
        explained.append(_explained(snapshot, address, access, found[cpu]))
    return explained


def _explained(
    snapshot: Snapshot, address: Virtual, access: Any, found: Translation
) -> Explanation:
    cpu, memory, asked = snapshot.cpu, snapshot.memory, architecture.of(snapshot.cpu)
    answer = asked.outcome(cpu, memory, address, access)
    lost = asked.unknown(answer)
    root = unrooted(snapshot, found.address, getattr(answer, "reason", None))
    unknown = found.unknown or root is not None
    passes = isinstance(answer, asked.allowed)
    lacking = passes or unknown or found.partly
    found_changes = () if lacking else asked.remedies(cpu, memory, address, access)
    changes = tuple(
        replace(one, in_memory=is_backed(snapshot, one.reaches)) for one in found_changes
    )
    blamed = tuple(_to_blame(found, access, answer))
    noted = tuple(_noted(found, answer))
    elsewhere = tuple(
        Elsewhere(read, who, asked.outcome(cpu, _Filled(memory, octet), address, access))
        for octet, read, who in asked.elsewhere
        if lost and not unknown
    )
    otherwise = tuple(
        Otherwise(assumed, instead, there)
        for assumed, instead, other in asked.others(snapshot, found)
        if not asked.alike(answer, there := asked.outcome(other, memory, address, access))
    )
    meant = None if passes or unknown else asked.pointer(cpu, address)
    return Explanation(
        access, answer, found, blamed, noted, changes, cpu, elsewhere, otherwise, meant, root
    )


def _to_blame(found: Translation, access: Any, answer: Any) -> Iterator[Stage]:
    cpu = found.cpu
    asked = architecture.of(cpu)
    if isinstance(answer, asked.allowed):
        return
    if asked.unknown(answer):
        yield from found.stages[-1:]
        return
    rights, wanted = cpu.format.rights, asked.withheld(access, answer)
    if wanted is not None:
        for stage in found.stages:
            if stage.slot is None:
                continue
            given = cpu.format.granted(stage.reading.raw, stage.slot.level)
            if not given & rights[wanted]:
                yield stage
    elif found.stages and not asked.of_address(answer):
        yield found.stages[-1]


def _noted(found: Translation, answer: Any) -> Iterator[tuple[Stage, str]]:
    cpu = found.cpu
    if not isinstance(answer, architecture.of(cpu).allowed):
        return
    format = cpu.format
    # Without a bit for the dirty state it is the one that keeps writes away, which is cleared.
    kept = format.rights["write"] & format.denied
    for stage in found.stages:
        raw = stage.reading.raw
        if stage.slot in answer.accessed and not raw & format.accessed:
            yield stage, _bit(format, format.accessed)
        if stage.slot != answer.dirty:
            continue
        if format.dirty and not raw & format.dirty:
            yield stage, _bit(format, format.dirty)
        elif not format.dirty and raw & kept:
            yield stage, f"{_bit(format, kept)}=0"


def _bit(format: Format, bit: int) -> str:
    """What a bit of pages is called."""
    shape = format.levels[0].leaf
    assert shape is not None
    return next(name for name, mask in shape.bits.items() if mask == bit)
