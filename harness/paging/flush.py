"""What the machine must forget before a change of its tables is complete.

Whatever narrows, unmaps or moves returns a Flush, and so does whatever maps, which has nothing to
flush where the machine keeps no absent entries (x86).  Who gets one must have the machine do it:

    with space.unmap(span) as flush:
        guest.invalidate(flush.addresses)

Where an entry may not become another at once (arm64's break-before-make), it is absent until then,
and the new one is written when the flush is done: only then is it there for the machine as well.

Leaving the block says that it is done, as `done()` does; only then are the tables freed that
the machine might still have walked.  One that is dropped undone is a RuntimeWarning, and its
tables are never used again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import TracebackType

import numpy as np

from harness.paging.memory import Words, distinct


class Flush:
    """Translations to be dropped, and what is to be done once they are.

    everything   what changed can be reached at addresses that are not listed, since a table
                 is shared or a root is gone, or by no flush of an address, since it is a pointer
                 (RISC-V): all translations of the space are to be dropped
    global_pages whether some of the translations are global, so that a reload of the root, or a
                 flush of one address space (RISC-V), is not enough to drop them
    """

    __slots__ = ("_addresses", "_after", "everything", "global_pages")

    def __init__(self) -> None:
        self.everything = False
        self.global_pages = False
        self._addresses: list[Words] = []
        self._after: list[Callable[[], None]] = []

    @property
    def addresses(self) -> Words:
        """The first address of every page, or of every slot that lost its table, whose
        translation is to be dropped; uint64, shape (n,), each once, in order."""
        if not self._addresses:
            return np.empty(0, np.uint64)
        return distinct(np.concatenate(self._addresses))

    def __bool__(self) -> bool:
        """Whether there is anything to be dropped, or to be done afterwards."""
        return bool(self.everything or self._addresses or self._after)

    def add(
        self, addresses: Words, *, everything: bool = False, global_pages: bool = False
    ) -> None:
        """Puts translations on the list; `everything` and `global_pages` are said of them."""
        if len(addresses):
            self._addresses.append(addresses)
            self.everything |= everything
            self.global_pages |= global_pages

    def add_everything(self) -> None:
        """Asks for all translations to be dropped, global ones too."""
        self.everything = self.global_pages = True

    def then(self, action: Callable[[], None]) -> None:
        """Has something done once the machine has forgotten."""
        self._after.append(action)

    def absorb(self, other: Flush) -> Flush:
        """Takes over what another has to flush, which is done with it; returns this one."""
        self._addresses += other._addresses
        self._after += other._after
        self.everything |= other.everything
        self.global_pages |= other.global_pages
        other.drop()
        return self

    def done(self) -> None:
        """The machine has forgotten: what had to wait for that is done now."""
        after = self._after
        self.drop()
        for action in after:
            action()

    def drop(self) -> None:
        """Nothing is to be flushed, nor to be done afterwards: what changed was taken back."""
        self._addresses, self._after = [], []
        self.everything = self.global_pages = False

    def __enter__(self) -> Flush:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.done()

    def __del__(self) -> None:
        if self.everything or self._addresses or self._after:
            warnings.warn(f"{self} was dropped before it was done", RuntimeWarning, stacklevel=2)

    def __repr__(self) -> str:
        count = len(self.addresses)
        addresses = "1 address" if count == 1 else f"{count} addresses"
        what = "everything" if self.everything else addresses
        return f"<Flush of {what}{', global ones too' if self.global_pages else ''}>"
