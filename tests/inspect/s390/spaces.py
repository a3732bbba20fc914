"""A space of s390, its entries written by hand."""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.inspect.snapshot import Snapshot
from harness.paging.address import Span
from harness.paging.memory import BigEndianMemory
from harness.paging.s390.cpu import Cpu, Mode

REGIONS, SEGMENTS, PAGES, MEMORY = 0x0, 0x4000, 0x8000, 0x10000

CPU: Final = Cpu.in_mode(Mode.REGION_THIRD, REGIONS, iep=True)
"""A region-third table with one segment table, of which the first quarter is there, and a page
table for the first 1M."""


def memory(**changed: int) -> BigEndianMemory:
    """That space: page 0 with all rights, 1 with P, 2 with IEP, 3 invalid but for its frame; of the
    `changed` entries, r of the region-third table, s of the segment table, p of the page table."""
    words = np.full(MEMORY // 8, 0x20, np.uint64)
    words[PAGES // 8 :] = 0x400
    words[REGIONS // 8] = SEGMENTS | 4
    words[SEGMENTS // 8] = PAGES
    words[PAGES // 8 :][:4] = [0x9000, 0xA200, 0xB100, 0xC400]
    for name, raw in changed.items():
        table = {"r": REGIONS, "s": SEGMENTS, "p": PAGES}[name[0]]
        words[table // 8 + int(name[1:])] = raw
    return BigEndianMemory(words.astype(">u8").view(np.uint8))


def snapshot(cpu: Cpu = CPU, /, **changed: int) -> Snapshot:
    return Snapshot("test", cpu, memory(**changed), (Span(0, MEMORY - 1),))
