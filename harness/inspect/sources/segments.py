"""Physical memory in pieces of a content, each from an address on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.inspect.snapshot import SourceError
from harness.inspect.sources.content import Content
from harness.paging.address import Physical, Span
from harness.paging.memory import MARKS, Mask, Memory, Order, Words


@dataclass(frozen=True)
class SegmentMemory:
    """Physical memory in the segments of a content; each address is in one, sorted.

    first, past  physical addresses: those of a segment, the second one excluded
    offset       in the content, of its first byte
    order        of the bytes of words
    """

    content: Content
    first: Words
    past: Words
    offset: Words
    order: Order = "little"

    @classmethod
    def of(cls, content: Content, first: Words, size: Words, offset: Words) -> SegmentMemory:
        """The memory in segments, of which the first that holds an address has it.

        Raises SourceError where the content does not have what they name.
        """
        some = size > 0
        first, size, offset = first[some], size[some], offset[some]
        if len(first) and (
            bool((first + size < first).any() or (offset + size < offset).any())
            or int((offset + size).max()) > len(content)
        ):
            raise SourceError(
                f"{content.path} is cut short: it has {len(content):,} bytes, and its segments"
                " reach beyond"
            )
        order = np.argsort(first, kind="stable")
        first, size, offset = first[order], size[order], offset[order]
        past = first + size
        before: Words = np.concatenate([np.zeros(1, np.uint64), past[:-1]])[: len(past)]
        covered: Words = np.maximum.accumulate(before)
        begin: Words = np.maximum(first, covered)
        new: Mask = begin < past
        offset = offset + (begin - first)
        return cls(content, begin[new], past[new], offset[new])

    def in_order(self, order: Order) -> SegmentMemory:
        """The same memory, whose words have this order of bytes."""
        return replace(self, order=order)

    @property
    def backed(self) -> tuple[Span, ...]:
        """Where there is memory, neighbours as one."""
        if not len(self.first):
            return ()
        apart = np.flatnonzero(self.first[1:] != self.past[:-1])
        first = self.first[np.concatenate([[0], apart + 1])]
        past = self.past[np.concatenate([apart, [len(self.past) - 1]])]
        return tuple(
            Span(one, other - 1) for one, other in zip(first.tolist(), past.tolist(), strict=True)
        )

    def load(self, address: Physical, size: int) -> int | None:
        """The word at an address, None where there is no memory."""
        words, backed = self.gather(np.array([address], np.uint64), size)
        return int(words[0]) if backed is None else None

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many addresses, and which of them have memory."""
        if not len(self.first):
            return np.zeros(len(addresses), np.uint64), np.zeros(len(addresses), np.bool_)
        number = np.searchsorted(self.first, addresses, side="right") - 1
        backed: Mask = (number >= 0) & (addresses + np.uint64(size) <= self.past[number])
        if backed.all():
            return self._words(self.offset[number] + (addresses - self.first[number]), size), None
        words = np.zeros(len(addresses), np.uint64)
        number = number[backed]
        place = self.offset[number] + (addresses[backed] - self.first[number])
        words[backed] = self._words(place, size)
        return words, backed

    def _words(self, place: Words, size: int) -> Words:
        """The words at places in the file, which have any alignment, most often all the same."""
        self.content.ask(place)
        index, apart = np.divmod(place, np.uint64(size))
        phase = int(apart[0]) if len(apart) else 0
        if phase or apart.any():
            self.content.ask(place + np.uint64(size - 1))
        octets, kind = self.content.octets, f"{MARKS[self.order]}u{size}"
        if (apart == np.uint64(phase)).all():
            count = (len(self.content) - phase) // size
            words = np.frombuffer(octets, kind, count, phase)[index.view(np.int64)]
        else:
            apiece = octets[place[:, None].view(np.int64) + np.arange(size)]
            words = apiece.view(kind)[:, 0]
        return words.astype(np.uint64)


_: type[Memory] = SegmentMemory
