"""Page-table isolation: two root tables for one space.

The kernel's root reaches everything; the user's root reaches the user half and, of the kernel,
what is needed to enter it.  Which one is loaded decides what the machine sees.  Below the
roots the user half has one set of tables, to which both lead.
"""

from __future__ import annotations

import numpy as np

from harness.paging.allocator import TableAllocator
from harness.paging.bits import Kind, kinds, withheld
from harness.paging.bulk import granted_by
from harness.paging.flush import Flush
from harness.paging.memory import Words, WritableMemory
from harness.paging.space import Account, Space
from harness.paging.table import Root, Slot, Table


class IsolatedSpace(Space):
    """A space whose root entries for the user half are kept in two root tables.

    In the kernel's they do not let user pages be executed, so that a kernel that returned to
    user mode without a change of root is found out at once.  What is flushed for the user half
    is to be flushed under both roots.

    roots       as the kernel has them, one table serving both halves
    user        the one of them that serves the user half
    user_table  the user's root table
    entry       what the user's root reaches of the kernel: a space of its own to map it in

    Raises ValueError for roots that have no user half beside another in one table, and for a
    format in which a root entry cannot withhold execution.
    """

    def __init__(
        self,
        memory: WritableMemory,
        roots: tuple[Root, ...],
        allocator: TableAllocator,
        user: Root,
        user_table: Table,
    ) -> None:
        format = user.table.format
        self._user, self._user_table = user, user_table
        self._seen = format.rights.get("user", 0)
        self._execute = format.rights.get("execute", 0)
        pointer = format.levels[user.table.level].pointer
        withholds = pointer and (pointer.grants is None or "execute" in pointer.grants)
        if not (self._execute and withholds and pointer) or pointer.reserved_mask & self._execute:
            raise ValueError(f"the root entries of {format.name} cannot withhold execution")
        rest = tuple(Root(user_table, root.span) for root in roots if root != user)
        alone = {root.table for root in roots} == {user.table}
        if not alone or len(rest) != len(roots) - 1 or not rest:
            raise ValueError("isolation needs one root table that serves a user half and another")
        self.entry = Space(memory, rest, allocator)
        super().__init__(memory, roots, allocator)

    @property
    def user_roots(self) -> tuple[Root, ...]:
        """Where walks begin while the user's root is loaded."""
        return tuple(Root(self._user_table, root.span) for root in self.roots)

    def put(self, slot: Slot, raw: Words) -> None:
        """Writes root entries of the user half to both roots."""
        if self._is_mirrored(slot):
            super().put(Slot(self._user_table, slot.index), raw)
            given = granted_by(self.format, slot.level, np.uint64(self._seen), raw)
            seen = kinds(self.format, slot.level, raw) != Kind.ABSENT
            seen &= given == np.uint64(self._seen)
            raw = np.where(seen, withheld(self.format, slot.level, raw, self._execute), raw)
        super().put(slot, raw)

    def read(self, slot: Slot) -> int:
        """As the user's root has it, accessed and dirty if it is so in either."""
        return int(self._merged(slot, np.array([super().read(slot)], np.uint64))[0])

    def words(self, slot: Slot, count: int) -> Words:
        """As `read`, for `count` slots."""
        return self._merged(slot, super().words(slot, count))

    def account(self) -> Account:
        """The tables of the kernel's root and of the user's, those that both reach once."""
        mine, entry = super().account(), self.entry.account()
        return Account(
            tuple(map(sum, zip(mine.tables, entry.tables, strict=True))),
            mine.bytes + entry.bytes,
            mine.counted + entry.counted,
        )

    def tear_down(self) -> Flush:
        """Ends the space with both its roots."""
        return super().tear_down().absorb(self.entry.tear_down())

    def _merged(self, slot: Slot, raw: Words) -> Words:
        if not self._is_mirrored(slot):
            return raw
        used = np.uint64(self.format.accessed | self.format.dirty)
        return super().words(Slot(self._user_table, slot.index), len(raw)) | raw & used

    def _is_mirrored(self, slot: Slot) -> bool:
        return slot.table == self._user.table and slot.index in self._user.indices
