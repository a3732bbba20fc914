"""A processor of which no more is known than its granule and the width of its addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from harness.inspect.arm64.processor import LINUX_MAIR
from harness.inspect.snapshot import QuestionError
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.arm64.formats import LARGEST_OUTPUT
from harness.paging.entry import Entry

MODES: Final = {
    "4k": ("4K", 48),
    "16k": ("16K", 48),
    "64k": ("64K", 48),
    "4k-52": ("4K", 52),
    "16k-52": ("16K", 52),
    "64k-52": ("64K", 52),
}
"""The granule, and how wide addresses are, by the names of the modes."""


def in_mode(mode: str, given: Mapping[str, Any]) -> Cpu:
    """A processor whose halves are alike, with the memory types of Linux unless MAIR_EL1 is given
    (`mair`); QuestionError for a value wider than that."""
    mair = given.get("mair", LINUX_MAIR)
    if mair >> 64:
        raise QuestionError(f"MAIR_EL1 has 64 bits, not as many as {mair:#x}")
    granule, width = MODES[mode]
    half = Half(granule, width, 0)
    return Cpu.of(
        half,
        half,
        output_bits=width,
        ds=width == LARGEST_OUTPUT and granule != "64K",
        mair=mair,
    )


def assumed(cpu: Cpu, given: Mapping[str, Any], entries: Iterable[Entry]) -> Iterator[str]:
    """What is assumed where entries are read, a sentence each."""
    yield (
        "the processor sets neither AF nor the dirty state (TCR_EL1.HA=0), and tables withhold"
        " rights (HPDn=0)"
    )
    if "mair" not in given:
        yield f"MAIR_EL1={LINUX_MAIR:#x}, as Linux has it (--mair)"
