"""Addresses, and spans of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NewType

Virtual = NewType("Virtual", int)
Physical = NewType("Physical", int)


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The addresses first..last, both included: the top of the address space never wraps.

    Raises ValueError for a negative address or an end before the start.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise ValueError(f"a span cannot run from {self.first:#x} to {self.last:#x}")

    @classmethod
    def of(cls, first: int, size: int) -> Span:
        """The `size` bytes from `first` on."""
        return cls(first, first + size - 1)

    @property
    def size(self) -> int:
        """Bytes in the span, at least 1."""
        return self.last - self.first + 1

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    def covers(self, other: Span) -> bool:
        """Whether every address of `other` is in this span."""
        return self.first <= other.first and other.last <= self.last

    def clip(self, other: Span) -> Span | None:
        """The addresses in both spans, or None where they do not meet."""
        first, last = max(self.first, other.first), min(self.last, other.last)
        return Span(first, last) if first <= last else None

    def pieces(self, granule: int) -> Iterator[Span]:
        """The span cut at every multiple of `granule` bytes, in order."""
        first = self.first
        while first <= self.last:
            last = min(first | (granule - 1), self.last)
            yield Span(first, last)
            first = last + 1

    def __str__(self) -> str:
        return f"{self.first:#x}..{self.last:#x}"


def signed_halves(width: int) -> tuple[Span, Span]:
    """The addresses of 64 bits whose upper ones all equal the highest of the lower `width`."""
    top, half = 1 << 64, 1 << width - 1
    return Span(0, half - 1), Span(top - half, top - 1)


def aligned(address: int, granule: int) -> bool:
    """Whether `address` is a multiple of `granule`, a power of two."""
    return address & (granule - 1) == 0
