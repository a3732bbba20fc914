"""The tables of a space as they were written, and as they are found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.check.compare import Comparison, Disagreement
from harness.check.stores import parts_of
from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.format import Format
from harness.paging.memory import Mask, Memory, Words, distinct
from harness.paging.processor import Cpu, root_for
from harness.paging.table import Root
from harness.paging.walk import walk

if TYPE_CHECKING:
    from harness.machine.monitor import Monitor

TABLE_BYTES: Final = "table bytes"
"""The oracle that is asked about them."""


@dataclass(frozen=True)
class TableImage:
    """The tables of a space as they were written, cut to the size of those at level 0: where each
    part is, and its words, (parts, n), of the format's size and byte order."""

    address: Words
    words: Words
    format: Format

    @classmethod
    def of(cls, memory: Memory, roots: tuple[Root, ...]) -> TableImage:
        """Every table that has memory behind it."""
        format = roots[0].table.format
        tables = bulk.leaves(memory, roots, limit=0).tables
        address = distinct(parts_of(format, tables).address)
        offset = np.arange(0, format.table_bytes(0), format.entry_bytes, dtype=np.uint64)
        words, backed = memory.gather((address[:, None] + offset).ravel(), format.entry_bytes)
        whole: Mask = np.ones(len(address), np.bool_)
        if backed is not None:
            whole = np.logical_and.reduce(backed.reshape(len(address), -1), axis=1)
        return cls(address[whole], words.reshape(len(address), -1)[whole], format)

    def holds(self, addresses: Words) -> Mask:
        """Which physical addresses are in one of these tables."""
        if not len(self.address):
            return np.zeros(len(addresses), np.bool_)
        size = np.uint64(self.words.shape[1] * self.format.entry_bytes)
        # Of an address below all of them that is the last, which begins behind it.
        first = self.address[np.searchsorted(self.address, addresses, side="right") - 1]
        held: Mask = (first <= addresses) & (addresses - first < size)
        return held

    def holding(self, address: int) -> TableImage:
        """The tables in which there is a word at a physical address."""
        size = self.words.shape[1] * self.format.entry_bytes
        here = (self.address <= address) & (address < self.address + np.uint64(size))
        return TableImage(self.address[here], self.words[here], self.format)


def add_walks(comparison: Comparison, memory: Memory, cpu: Cpu) -> None:
    """Puts the reference's walks beside the disagreements."""
    for number, found in enumerate(comparison.disagreements):
        address = Virtual(found.address)
        root = root_for(cpu, address)
        if root is not None and found.oracle != TABLE_BYTES:
            traced = replace(found, walk=walk(memory, root, address))
            comparison.disagreements[number] = traced


def images_of(memory: Memory, roots: tuple[Root, ...]) -> tuple[TableImage, ...]:
    """The tables of a space whose roots have tables of several formats: those of each."""
    by_format: dict[str, list[Root]] = {}
    for root in roots:
        by_format.setdefault(root.table.format.name, []).append(root)
    return tuple(TableImage.of(memory, tuple(alike)) for alike in by_format.values())


def compare_tables(monitor: Monitor, *images: TableImage) -> Comparison:
    """Compares tables, by their physical addresses, with what QEMU finds there.

    Not by virtual ones: to translate them QEMU 7.2 sets A in the tables of the guest.
    """
    comparison = Comparison(TABLE_BYTES)
    for address, words, format in (
        (address, words, image.format)
        for image in images
        for address, words in zip(image.address.tolist(), image.words, strict=True)
    ):
        entry_bytes, order = format.entry_bytes, "<" if format.byte_order == "little" else ">"
        octets = monitor.read_physical(address, len(words) * entry_bytes)
        seen = np.frombuffer(octets, f"{order}u{entry_bytes}").astype(np.uint64)
        comparison.compared += 1
        wrong = np.flatnonzero(seen != words)
        if len(wrong):
            at = int(wrong[0])
            found = Disagreement(
                TABLE_BYTES,
                address + at * entry_bytes,
                None,
                f"{int(words[at]):#x}, as it was written",
                f"{int(seen[at]):#x}, and {len(wrong) - 1} more in this table",
            )
            comparison.disagree(1, [found])
    return comparison
