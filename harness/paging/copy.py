"""A fork: the mappings of one space are copied to another, with copy on write.

The seam to a kernel is `Dialect`: what a fork makes of entries, software's own among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from harness.paging.bits import Kind, kinds, withheld
from harness.paging.format import Format
from harness.paging.memory import Words


class Fork(NamedTuple):
    """What the entries of a table become in a fork; one lane an entry, shape (n,) each.

    parent, child  the entries of both sides afterwards, uint64; a child's that is zero is not
                   written
    counted        uint8, what each entry counts as: a member of the dialect's `Counted`
    """

    parent: Words
    child: Words
    counted: npt.NDArray[np.uint8]


class ForkRefused(ValueError):  # noqa: N818 - it names what happened, as in the message
    """An entry that a fork cannot copy: `index` says which of those given, the text why."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index


class Dialect(Protocol):
    """What entries of one format mean to a kernel, as far as a fork asks."""

    @property
    def format(self) -> Format:
        """The format whose entries it knows."""

    @property
    def counted(self) -> type[IntEnum]:
        """What copied entries are counted as."""

    def fork(self, raw: Words, level: int, private: bool) -> Fork:
        """What becomes of the entries, shape (n,), of a table at `level`.

        None of them is zero or a pointer.  ForkRefused for one that cannot be copied.

        private  pages are copied on write, so that neither side may write them for now; else
                 both sides go on sharing them
        """


class Page(IntEnum):
    """What the hardware's own dialect counts."""

    PAGE = 0


@dataclass(frozen=True)
class Hardware:
    """The dialect of who writes nothing but what the format describes."""

    format: Format

    @property
    def counted(self) -> type[IntEnum]:
        return Page

    def fork(self, raw: Words, level: int, private: bool) -> Fork:
        """Private pages lose the right to be written on both sides; the child has not accessed
        any, and has not written the shared ones."""
        format = self.format
        other = kinds(format, level, raw) != Kind.LEAF
        if other.any():
            raise ForkRefused(int(other.argmax()), "it is no page, and no other is known here")
        write = format.rights.get("write", 0)
        parent = withheld(format, raw, write) if private else raw
        fresh = format.accessed if private else format.accessed | format.dirty
        return Fork(parent, parent & ~np.uint64(fresh), np.full(len(raw), Page.PAGE, np.uint8))
