"""A processor of which no more is known than the table at which its walks begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from harness.paging.entry import Entry
from harness.paging.s390.cpu import Asce, Cpu, Mode


def in_mode(mode: str, _: Mapping[str, Any]) -> Cpu:
    """A processor in the mode, with every facility that concerns its entries."""
    return Cpu.in_mode(Mode(mode), 0, edat1=True, edat2=True, iep=True)


def told(raw: int) -> str | None:
    """The table at which walks begin by a value of the ASCE."""
    with suppress(ValueError):
        return Asce.of(raw).mode.value
    return None


def assumed(_: Cpu, __: Mapping[str, Any], ___: Iterable[Entry]) -> Iterator[str]:
    """What is assumed where entries are read, a sentence each."""
    yield "the enhanced-DAT facilities and IEP are on, and the space is not private"
