"""What the pytest plugin, and what proves tables, ask of an architecture: guests, and spaces in
them, compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from harness.architectures import module_of
from harness.check.compare import Comparison, Disagreement
from harness.check.live import Live
from harness.check.space import GuestSpace
from harness.machine.guest import StubGuest
from harness.paging.memory import BufferMemory, Words
from harness.paging.table import Root

Guest = StubGuest[Any, Any]


class Fixtures(Protocol):
    """A module `fixtures` of an architecture.

    LEVELS        the numbers of levels at which tests run, each with what its mode is called
    DEFAULT       the engines on which tests run where none is named
    """

    LEVELS: Mapping[int, str]
    DEFAULT: tuple[str, ...]

    def new_guest(self, engine: str, ram_bytes: int, program: str | None) -> Guest:
        """A running guest; raises MachineError where there can be none."""

    def executor(self, guest: Guest) -> tuple[str, tuple[int, ...]]:
        """Who executes a guest's instructions, and in which version."""

    def new_versions(self, guest: Guest) -> tuple[str, ...]:
        """What answers in a version that was not yet run, a sentence each."""

    def lacking(self, guest: Guest, levels: int) -> str | None:
        """Why a guest has no mode with so many levels, as a sentence; None if it has."""

    def new_space(self, guest: Guest, levels: int) -> GuestSpace:
        """An empty space in its RAM."""

    def new_live(self, guest: Guest, space: GuestSpace) -> Live:
        """The guest as it runs in a space."""

    def check_root(self, guest: Guest, cpu: Any) -> None:
        """Raises Misuse for a root that cannot be loaded, or lies where no table can."""

    def compared(
        self, guest: Guest, memory: BufferMemory, cpu: Any, asked: Words | None
    ) -> tuple[Comparison, ...]:
        """What comes of a space in the memory that is the caller's, oracle by oracle.

        asked  addresses to ask about besides; None for none

        What the space maps there is overwritten.

        Raises SpaceError for a space that leaves no hole for the stub, MachineError for a guest
        that is lost.
        """

    def compare_one(
        self, guest: Guest, memory: BufferMemory, cpu: Any, found: Disagreement
    ) -> Comparison:
        """What comes of the question of a disagreement alone, asked again; raises likewise, and
        Misuse where this guest cannot be asked."""

    def root(self, cpu: Any, root: Root) -> str:
        """The register that leads to a root, with its value."""


def registers(cpu: Any) -> dict[str, str]:
    """The registers that lead to the roots of a state: each name, and it with its value."""
    root = fixtures_of(cpu.architecture).root
    found = (root(cpu, one) for one in cpu.roots)
    return {one.partition(" ")[0]: one for one in found}


def fixtures_of(arch: str) -> Fixtures:
    """Those of an architecture."""
    found: Any = module_of(arch, "check", "fixtures")
    return found  # type: ignore[no-any-return]
