"""The state of a POWER processor that decides how it translates and what it allows.

An address chooses its root itself: the two highest bits are its quadrant, and each quadrant has a
process, whose entry in the process table says where its tree begins.  Quadrant 0 is that of the
process in PIDR, quadrant 3 that of process 0.

Source: Power ISA 3.0, Book III, "Radix Tree Translation", "Partition Table", "Process Table" and
"Authority Mask Register"; which trees there may be, the POWER9 and POWER10 User's Manuals,
"Supported Radix Tree Configurations and Resulting Page Sizes".

Not covered: a second stage.  A hypervisor's quadrants 1 and 2 lead into the partition of LPIDR by
one, and are refused; of what runs in a partition, the state is that of its own stage, with the
memory that it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final

from harness.paging.address import Physical, Span, Virtual
from harness.paging.entry import Malformed
from harness.paging.format import Format, bits
from harness.paging.memory import Memory
from harness.paging.power.formats import radix
from harness.paging.table import Root, Table
from harness.paging.walk import Walk, walk

ADDRESS_BITS: Final = 52
"""What a tree translates of an address."""
QUADRANT: Final = bits(63, 62)
UNTRANSLATED: Final = bits(61, ADDRESS_BITS)
"""The bits between, which must be clear."""

ROOT_BASE: Final = bits(59, 8)
ROOT_SIZE: Final = bits(4, 0)
"""Of the first doubleword of a process table entry: where the root's table is (RPDB), and log2 of
its entries (RPDS).  Of its size (RTS), which stands in two parts, `tree_bits`."""

ROOT_BITS: Final = 13
"""log2 of the entries of a root."""

PAGE_BITS: Final = (12, 16)

PROCESS_ENTRY_BYTES: Final = 16
HOST_RADIX: Final = bits(63)
TABLE_BASE: Final = bits(59, 12)
TABLE_SIZE: Final = bits(4, 0)
"""Of PTCR, and of the second doubleword of a partition table entry: where a table is, and log2 of
its bytes, less 12."""


def root_descriptor(root: int, root_bits: int = ROOT_BITS, tree_bits: int = ADDRESS_BITS) -> int:
    """The first doubleword of a process table entry for a tree.

    root       physical address of the root's table
    root_bits  log2 of its entries
    tree_bits  log2 of the bytes that the tree spans

    Raises ValueError for what has no room there, and a root that is not aligned to its size.
    """
    if not 0 <= root_bits <= ROOT_SIZE or not 0 <= tree_bits - 31 < 32:
        raise ValueError(
            f"a process table entry cannot describe a root of {root_bits} bits in a tree of"
            f" {tree_bits}"
        )
    size = tree_bits - 31
    descriptor = size >> 3 << 61 | root & ROOT_BASE | (size & 7) << 5 | root_bits
    if root_address(descriptor) != root:
        raise ValueError(f"a process table entry cannot hold a root at {root:#x}")
    return descriptor


def root_address(descriptor: int) -> Physical:
    """Where the root's table is.  It is aligned to its size: lower bits are ignored."""
    size = 8 << (descriptor & ROOT_SIZE)
    return Physical(descriptor & ROOT_BASE & -size)


def tree_bits(descriptor: int) -> int:
    """log2 of the bytes that a tree spans, as a process table entry describes it."""
    return ((descriptor >> 61 & 3) << 3 | descriptor >> 5 & 7) + 31


def is_supported(descriptor: int) -> bool:
    """Whether there may be such a tree: one of 52 bits, whose root has 13."""
    return tree_bits(descriptor) == ADDRESS_BITS and descriptor & ROOT_SIZE == ROOT_BITS


@dataclass(frozen=True)
class Cpu:
    """The state of a processor with radix translation on.

    quadrant0  first doubleword of the process table entry for the process in PIDR; None where the
               process table has no such entry
    quadrant3  the same of process 0, which every process table has
    amr, iamr  the registers, whose key 0 holds for pages of the user that others use
    hv         whether it is the hypervisor (MSR.HV), and not in a partition
    page_bits  log2 of the smallest pages of what is built: 12 or 16.  What is read may have both
    sets_marks whether it sets R and C itself; else what needs one set fails, and software does so.
               Both are allowed ("Reference and Change Recording"): QEMU does the one up to 8.1,
               the other from 8.2 on, as POWER9 and microwatt do

    Raises ValueError for a state that no processor can be in.
    """

    architecture: ClassVar[str] = "power"

    quadrant0: int | None
    quadrant3: int = 0
    amr: int = 0
    iamr: int = 0
    hv: bool = True
    page_bits: int = 12
    sets_marks: bool = True

    def __post_init__(self) -> None:
        for name in ("quadrant0", "quadrant3", "amr", "iamr"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1 << 64:
                raise ValueError(f"{name} has 64 bits: {value:#x}")
        if self.page_bits not in PAGE_BITS:
            raise ValueError(f"the smallest pages have 12 or 16 bits, not {self.page_bits}")

    @classmethod
    def of(
        cls,
        user: int,
        kernel: int | None = None,
        *,
        amr: int = 0,
        iamr: int = 0,
        hv: bool = True,
        page_bits: int = 12,
        sets_marks: bool = True,
    ) -> Cpu:
        """A processor whose trees have their roots at these physical addresses: that of the
        process, and that of process 0, if there is one.

        Raises ValueError for roots that a process table entry cannot hold.
        """
        return cls(
            root_descriptor(user),
            0 if kernel is None else root_descriptor(kernel),
            amr=amr,
            iamr=iamr,
            hv=hv,
            page_bits=page_bits,
            sets_marks=sets_marks,
        )

    @cached_property
    def format(self) -> Format:
        """The format of trees of its smallest pages."""
        return radix(self.page_bits)

    @cached_property
    def other_format(self) -> Format:
        """The format of the paths whose page tables are of the other size."""
        return radix(sum(PAGE_BITS) - self.page_bits)

    @property
    def levels(self) -> int:
        """Levels of tables that a walk may use."""
        return len(self.format.levels)

    @cached_property
    def base(self) -> Physical:
        """Where the tree of the process begins; of process 0 where there is no other.

        Raises ValueError where neither has one."""
        for descriptor in (self.quadrant0, self.quadrant3):
            if descriptor:
                return root_address(descriptor)
        raise ValueError("no process has a tree")

    @cached_property
    def roots(self) -> tuple[Root, ...]:
        """Where walks begin: one table a quadrant, of those that have a tree that may be."""
        return self.roots_in(self.format)

    def roots_in(self, format: Format) -> tuple[Root, ...]:
        """The same for one of the two formats."""
        found = []
        for quadrant, descriptor in ((0, self.quadrant0), (3, self.quadrant3)):
            if descriptor is not None and is_supported(descriptor):
                table = Table(format, root_address(descriptor), self.levels - 1)
                found.append(Root(table, Span.of(quadrant << 62, 1 << ADDRESS_BITS)))
        return tuple(found)


def walk_of(cpu: Cpu, memory: Memory, root: Root, address: Virtual) -> Walk:
    """The walk of an address from one of the roots, in the format that its path has."""
    found = walk(memory, root, address)
    if found.unbacked is None and is_of_other_size(found.steps[-1].entry, found.level):
        table = Table(cpu.other_format, root.table.address, root.table.level)
        return walk(memory, Root(table, root.span), address)
    return found


OTHER_SIZE: Final = 5 ^ 9
"""The bits in which the two sizes of page tables differ, 5 and 9 in NLS."""
_ABOVE_PAGE_TABLES: Final = 1


def is_of_other_size(entry: object, level: int) -> bool:
    """Whether an entry is malformed by leading to a page table of the other size alone."""
    return level == _ABOVE_PAGE_TABLES and entry == Malformed(OTHER_SIZE)


class ChainError(ValueError):
    """What should lead to the trees does not: a sentence that says which table, and why."""


def load(
    memory: Memory,
    ptcr: int,
    pid: int,
    *,
    amr: int = 0,
    iamr: int = 0,
    page_bits: int = 12,
) -> Cpu:
    """The state of a hypervisor with these registers: the partition table at PTCR, its entry for
    LPID 0, and the process table there lead to the trees.

    A process for which the process table has no entry has no tree.  The address of the process
    table is translated by the tree of LPID 0, as the hypervisor's own partition table entry has
    it.  Raises `ChainError` where that chain breaks.
    """
    first = _doubleword(memory, ptcr & TABLE_BASE, "the partition table's entry for LPID 0")
    second = _doubleword(memory, (ptcr & TABLE_BASE) + 8, "the second half of that entry")
    if not first & HOST_RADIX:
        raise ChainError(f"the partition table's entry for LPID 0 is {first:#x}, without HR")
    if not is_supported(first):
        raise ChainError(f"LPID 0 has {first:#x}, which describes no tree that there may be")
    size = 1 << (second & TABLE_SIZE) + 12

    def descriptor(process: int) -> int:
        offset = process * PROCESS_ENTRY_BYTES
        at = _in_partition(memory, first, (second & TABLE_BASE) + offset)
        return _doubleword(memory, at, f"the process table's entry for PID {process}")

    user = descriptor(pid) if pid * PROCESS_ENTRY_BYTES < size else None
    return Cpu(user, descriptor(0), amr=amr, iamr=iamr, page_bits=page_bits)


def _in_partition(memory: Memory, first: int, address: int) -> int:
    """What the tree of a partition makes of an address in it."""
    if address >> ADDRESS_BITS:
        raise ChainError(f"the process table is at {address:#x}, beyond the tree of LPID 0")
    host = Cpu(first & ~HOST_RADIX)
    [root] = host.roots
    found = walk_of(host, memory, root, Virtual(address)).physical
    if found is None:
        raise ChainError(f"LPID 0 does not map the process table's entry at {address:#x}")
    return found


def _doubleword(memory: Memory, address: int, what: str) -> int:
    found = memory.load(Physical(address), 8)
    if found is None:
        raise ChainError(f"no memory is at {address:#x}, where {what} would be")
    return found
