"""Page tables, generic over levels.  What the bits mean and how to change them.

No processes, no files, no clocks: everything here is a function of memory and CPU state.

The words, used by the code, the documents and the output alike:

table      one block of entries at a physical address, at a level.
level      0 is the table that can only map pages.  A pointer found at level n leads to a
           table at level n-1: a law of the library, in every format.  It is what bounds
           every walk, self-maps included.
slot       the place of one entry: a table and an index.
entry      what a slot says, decoded: Absent, Pointer, Leaf or Malformed (with the
           offending bits).
root       the table where the walk of an address begins, and the span of addresses it
           serves.  A format may have several.  There is no pretended table above the root.
span       addresses first..last, both included, so that the end of the address space
           never wraps.
walk       every step from root to answer: slot, raw value, entry.
shape      one way to read a present entry: the pattern of bits that makes it this one, and
           where its address and its rights stand.
granted    the rights of a mapping as one word, a set bit being a right given; the rights
           along a walk are the AND of what its entries grant.
CPU state  control registers, keys, flags and features: fields, never constants.
access     read, write or fetch; by the user or the supervisor; explicit or implicit.
outcome    allowed (the physical address, and the accessed and dirty bits to be set) or a
           fault (vector, error code, CR2, level, reason).  A fault is a value, not an
           exception.
unbacked   said of a physical address with no memory behind it.  It is an answer of its
           own, apart from "not present".
outside    said of a slot that its table does not have, by what the pointer to the table says.
space      an address space under construction: roots, memory, table allocator.

What `__all__` names is for other projects, and each architecture here has more of it:
the state of a processor, and what accesses come to.

`address`    spans and their arithmetic
`format`     what a format is; decode and encode, once for all
`entry`      the four kinds
`value`      one entry as it stands in memory, with all that is needed to say what it means
`memory`     physical memory as the library sees it
`table`      Table, Slot, Root
`walk`       an address to its walk, and all leaves of a space, as the definition
`bulk`       the same answers for millions of addresses, as arrays
`bits`       what the bits of many raw entries say, and which changes leave something stale
`space`      the builder, on `tree`, the tables of a space, and `allocator`, where they come from
`slots`      one slot of a space at a time: read, set, cleared, stepped from, walked down
`visit`      what a range holds, holes included, from the lowest address up
`copy`       a fork: mappings copied to another space, with copy on write
`reshape`    pages moved, split into smaller ones, collapsed into a larger one
`isolation`  two root tables for one space
`sync`       root entries that spaces share
`flush`      what the machine must forget before a change is complete
`processor`  what CPU states of all architectures have in common; where a walk begins
`lock`       the locks of tables, and the one order in which they are taken
`errors`     what a space refuses
`linux`      what Linux keeps in the bits that the machine ignores
`x86`        formats, CPU state and access rights of that architecture
`riscv`      the same of that one: Sv32, Sv39, Sv48, Sv57
`arm64`      the same of that one, stage 1 of EL1&0: granules of 4K, 16K and 64K
`s390`       the same of that one: region, segment and page tables
`power`      the same of that one: radix trees of 4K and of 64K pages, in one stage
"""

from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual, aligned
from harness.paging.allocator import TableAllocator
from harness.paging.copy import copy_range
from harness.paging.entry import Absent, Entry, Leaf, Malformed, Pointer
from harness.paging.errors import OutOfTables, SpaceError, TooManyTables
from harness.paging.flush import Flush
from harness.paging.format import Format
from harness.paging.memory import BigEndianMemory, BufferMemory, Memory, WritableMemory
from harness.paging.space import Space
from harness.paging.table import Root, Slot, Table
from harness.paging.value import Value
from harness.paging.walk import Step, Walk, leaves, walk

__all__ = [
    "Absent",
    "BigEndianMemory",
    "BufferMemory",
    "Entry",
    "Flush",
    "Format",
    "Leaf",
    "Malformed",
    "Memory",
    "OutOfTables",
    "Physical",
    "Pointer",
    "Root",
    "Slot",
    "Space",
    "SpaceError",
    "Span",
    "Step",
    "Table",
    "TableAllocator",
    "TooManyTables",
    "Value",
    "Virtual",
    "Walk",
    "WritableMemory",
    "aligned",
    "bulk",
    "copy_range",
    "leaves",
    "walk",
]
