"""A processor of which little more is known than its granule and the width of its addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from harness.inspect.arm64.processor import LINUX_MAIR, NAMED
from harness.inspect.arm64.registers import GRANULES
from harness.inspect.snapshot import QuestionError
from harness.paging.arm64.cpu import Cpu, Half, Tcr
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

HPD: Final = 1 << 41 | 1 << 42
"""HPD0 and HPD1 of TCR_EL1."""


def in_mode(mode: str, given: Mapping[str, Any]) -> Cpu:
    """A processor whose halves are alike, with the memory types of Linux unless MAIR_EL1 is given
    (`mair`), and with HA, HD, HPDn, A1 and AS as TCR_EL1 has them, if that is given (`tcr`);
    QuestionError for a value wider than these."""
    mair, tcr = given.get("mair", LINUX_MAIR), given.get("tcr", 0)
    for name, value in (("mair", mair), ("tcr", tcr)):
        if value >> 64:
            raise QuestionError(f"{NAMED[name]} has 64 bits, not as many as {value:#x}")
    granule, width = MODES[mode]
    half = Half(granule, width, 0, hpd=tcr & HPD == HPD)
    cpu = Cpu.of(
        half,
        half,
        output_bits=width,
        ds=width == LARGEST_OUTPUT and granule != "64K",
        ha=bool(tcr & Tcr.HA),
        hd=bool(tcr & Tcr.HD),
        mair=mair,
    )
    return replace(cpu, tcr=cpu.tcr | tcr & (Tcr.A1 | Tcr.AS))


def assumed(cpu: Cpu, given: Mapping[str, Any], entries: Iterable[Entry]) -> Iterator[str]:
    """What is assumed where entries are read, a sentence each."""
    if "tcr" not in given:
        yield (
            "the processor sets neither AF nor the dirty state (TCR_EL1.HA=0), tables withhold"
            " rights (HPDn=0), and the ASID has 8 bits and is TTBR0_EL1's (AS=0, A1=0) (--tcr)"
        )
    else:
        yield from _otherwise(cpu, given["tcr"])
    if "mair" not in given:
        yield f"MAIR_EL1={LINUX_MAIR:#x}, as Linux has it (--mair)"


def _otherwise(cpu: Cpu, tcr: int) -> Iterator[str]:
    """Where entries are read as TCR_EL1 does not have it."""
    if tcr & HPD not in (0, HPD):
        yield "tables withhold rights: TCR_EL1 says so of one half alone (HPD0, HPD1)"
    for number, half in ((0, cpu.low), (1, cpu.high)):
        granule = GRANULES[number][tcr >> 14 + 16 * number & 3]
        off = tcr >> 7 + 16 * number & 1
        assert half is not None  # a mode has both
        if granule not in (half.granule, "reserved") and not off:
            yield f"pages of {half.granule} (--mode), where TCR_EL1 has TG{number} of {granule}"
