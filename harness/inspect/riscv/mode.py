"""A hart of which no more is known than its mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from harness.paging.entry import Entry
from harness.paging.riscv.cpu import Cpu, Mode, Satp


def in_mode(mode: str, _: Mapping[str, Any]) -> Cpu:
    """A hart in the mode, with all extensions that concern its entries."""
    wide = mode != Mode.SV32.value
    return Cpu.in_mode(Mode(mode), 0, pbmte=wide, svnapot=wide)


def told(raw: int) -> str | None:
    """The mode that a value of satp says, of a hart of 64 bits or else of 32."""
    for xlen in (64, 32):
        with suppress(ValueError):
            return Satp.of(raw, xlen).mode.value
    return None


def assumed(cpu: Cpu, given: Mapping[str, Any], entries: Iterable[Entry]) -> Iterator[str]:
    """What is assumed where entries are read, a sentence each."""
    has = "has Svnapot and Svpbmt, and " if cpu.xlen == 64 else ""
    yield f"the hart {has}sets neither A nor D (menvcfg.ADUE=0)"
