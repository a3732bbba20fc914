"""The state in which tables are read, in words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from harness.architectures import module_of
from harness.inspect import architecture
from harness.inspect.snapshot import Snapshot
from harness.paging.processor import Cpu
from harness.report.visible import visible


class States(Protocol):
    """What the module `state` of each architecture says of its CPU states.

    root       the register that leads to the root of an address
    notes      what there is to know of one before anything that is said of its tables
    root_text  that register, and what its bits are that are no part of an address
    rows       its registers, and what they hold; both of those alone that have several roots with
               the registers that are not given
    as_object  a state as what JSON can hold
    rootless   what of that is another where it is not known where the root is
    ungiven    and where roots are not given, by the registers that lead there; of those alone that
               have several
    """

    def root(self, address: int, /) -> str: ...
    def notes(self, cpu: Any, /) -> Iterator[str]: ...
    def root_text(self, cpu: Any, lost: Collection[str] = (), /) -> str: ...
    def rows(self, cpu: Any, lost: Collection[str] = (), /) -> Iterator[tuple[str, str]]: ...
    def as_object(self, cpu: Any, /) -> Mapping[str, Any]: ...
    def rootless(self, found: Mapping[str, Any], /) -> Mapping[str, Any]: ...
    def ungiven(
        self, found: Mapping[str, Any], names: Sequence[str], /
    ) -> Mapping[str, Any]: ...


def of(cpu: Cpu) -> States:
    """What says so of a CPU state."""
    found: States = module_of(cpu.architecture, "report", "state")
    return found


def head_lines(snapshot: Snapshot) -> Iterator[str]:
    """What was looked at, by which root, and what there is to know of it."""
    known = snapshot.given is None or snapshot.cpu.base not in snapshot.given.unplaced
    root = roots_text(snapshot) if known else f"{_root_of(snapshot.cpu)} not given"
    yield f"{visible(snapshot.title)}, {root}"
    yield from (f"Note: {sentence}" for sentence in notes(snapshot))


def not_given_lines(snapshot: Snapshot) -> Iterator[str]:
    """That the addresses which these serve were not checked; nothing where all are given."""
    for name in architecture.not_given(snapshot):
        yield f"Not given: --{name}. The addresses it serves were not checked."


def _root_of(cpu: Cpu) -> str:
    """The register that leads to the first root."""
    return of(cpu).root(cpu.roots[0].span.first if cpu.roots else 0)


def notes(snapshot: Snapshot) -> Iterator[str]:
    """What there is to know of a snapshot before anything that is said of it, a sentence each."""
    yield from of(snapshot.cpu).notes(snapshot.cpu)
    yield from snapshot.notes


def of_parts(parts: Sequence[Snapshot], lines: Callable[[int], Iterable[str]]) -> Iterator[str]:
    """The lines of each part of a snapshot, by its number; where there are several, below what it
    is."""
    for number, one in enumerate(parts):
        if len(parts) > 1:
            spans = " and ".join(str(root.span) for root in one.cpu.roots)
            yield from [""] if number else []
            yield f"{spans}, {one.cpu.format.name}:"
        yield from lines(number)


def rows(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """The registers of a snapshot's CPU state, and what they hold."""
    return of(snapshot.cpu).rows(snapshot.cpu, *_several(snapshot))


def roots_text(snapshot: Snapshot) -> str:
    """The registers that lead to its roots, as `root_text`."""
    return of(snapshot.cpu).root_text(snapshot.cpu, *_several(snapshot))


def _several(snapshot: Snapshot) -> tuple[tuple[str, ...], ...]:
    """The roots that are not given, for an architecture that has several; else nothing."""
    return (lost,) if (lost := architecture.not_given(snapshot)) else ()


def root_text(cpu: Cpu) -> str:
    """The register that leads to the root, and where it has other bits than an address, where it
    leads and what these are."""
    return of(cpu).root_text(cpu)
