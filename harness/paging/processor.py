"""What the CPU states of all architectures have in common, for code that serves any of them."""

from __future__ import annotations

from typing import ClassVar, Protocol

from harness.paging.address import Physical
from harness.paging.format import Format
from harness.paging.table import Root


class Cpu(Protocol):
    """The state of a processor, with paging on: a value, by which what it reads can be kept.

    architecture  the name of its architecture, which is that of its folder in each package
    """

    architecture: ClassVar[str]

    def __hash__(self) -> int: ...

    @property
    def format(self) -> Format:
        """The format that it reads its tables in; ValueError where these have several."""

    @property
    def levels(self) -> int:
        """Levels of tables that a walk may use."""

    @property
    def base(self) -> Physical:
        """Where its register of the root leads."""

    @property
    def roots(self) -> tuple[Root, ...]:
        """Where walks begin."""


def root_for(cpu: Cpu, address: int) -> Root | None:
    """Where the walk of an address begins; None where it begins nowhere: the address is not
    canonical, or what would lead to its root is not present."""
    for root in cpu.roots:
        if address in root.span:
            return root
    return None
