"""A processor of which no more is known than the size of its smallest pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from harness.paging.entry import Entry, Leaf
from harness.paging.power.cpu import Cpu

MODES: Final = {"radix-4k": 12, "radix-64k": 16}
"""log2 of the smallest pages, by the names of the modes."""


def in_mode(mode: str, _: Mapping[str, Any]) -> Cpu:
    """A processor whose trees have such pages."""
    return Cpu.of(0, page_bits=MODES[mode], sets_marks=False)


def assumed(cpu: Cpu, given: Mapping[str, Any], entries: Iterable[Entry]) -> Iterator[str]:
    """What is assumed where entries are read, a sentence each."""
    if any(isinstance(one, Leaf) for one in entries):
        yield "the processor sets neither R nor C, as POWER9 does not"
