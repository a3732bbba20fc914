"""The state of an arm64 processor, in words and as what JSON can hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from harness.inspect.arm64.processor import EPD
from harness.paging.arm64.cpu import Cpu, Half


def root(address: int) -> str:
    """The register that leads to the root of an address."""
    return f"TTBR{address >> 55 & 1}_EL1"


def notes(cpu: Cpu) -> Iterator[str]:
    """What there is to know of a state before anything that is said of its tables, a sentence
    each."""
    for half, which in ((cpu.low, "lower"), (cpu.high, "upper")):
        if half is None:
            continue
        if half.hpd:
            yield f"TCR_EL1.HPD=1 for the {which} half, so that its tables withhold no rights."
        if half.e0pd:
            yield f"TCR_EL1.E0PD=1 for the {which} half, of which EL0 reaches nothing."
        if half.root >> cpu.output_bits(half):
            yield (
                f"The root of the {which} half, {half.root:#x}, is beyond the"
                f" {cpu.output_bits(half)} bits of IPS: every access there faults."
            )
    if cpu.aligns:
        yield "SCTLR_EL1.A=1, so that data which is not aligned faults wherever it is."
    if cpu.wxn:
        yield "SCTLR_EL1.WXN=1, so that nothing is executed that can be written."
    if cpu.pan:
        more = " or execute (EPAN)" if cpu.epan else ""
        yield f"PSTATE.PAN=1, so that EL1 uses no data of what EL0 can reach{more}."
    if cpu.keeps_dirty_state:
        yield "TCR_EL1.HA=1 and HD=1, so that pages with DBM=1 are writable whatever AP[2] is."


def root_text(cpu: Cpu, lost: Collection[str] = ()) -> str:
    """The registers of the roots, and where they lead; `lost` are those that were not given."""
    halves = (("TTBR0", cpu.ttbr0, cpu.low), ("TTBR1", cpu.ttbr1, cpu.high))
    return "; ".join(
        f"{name} {_root(raw, half, name.lower() in lost)}" for name, raw, half in halves
    )


def _root(raw: int, half: Half | None, lost: bool) -> str:
    if half is None:
        return "not given" if lost else "off"
    return f"{raw:#x} ({half.granule} {half.address_bits}-bit, root at {half.root:#x})"


def rows(cpu: Cpu, lost: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """The registers of a state, and what they hold; `lost` are those that were not given."""
    yield "TTBR0_EL1", _root(cpu.ttbr0, cpu.low, "ttbr0" in lost)
    yield "TTBR1_EL1", _root(cpu.ttbr1, cpu.high, "ttbr1" in lost)
    yield "TCR_EL1", f"{_given_tcr(cpu.tcr, lost):#x}"
    yield "MAIR_EL1", f"{cpu.mair:#x}"
    yield "SCTLR_EL1", f"{cpu.sctlr:#x}"


def as_object(cpu: Cpu) -> dict[str, Any]:
    """A CPU state."""
    return {
        "architecture": cpu.architecture,
        **{name: hex(getattr(cpu, name)) for name in ("ttbr0", "ttbr1", "tcr", "mair", "sctlr")},
        "pan": cpu.pan,
        "uao": cpu.uao,
        "halves": [_half(cpu, "lower", cpu.low), _half(cpu, "upper", cpu.high)],
    }


def _half(cpu: Cpu, which: str, half: Half | None) -> dict[str, Any]:
    """A half of the addresses."""
    return {
        "half": which,
        "root": None if half is None else hex(half.root),
        "granule": half and half.granule,
        "address_bits": half and half.address_bits,
        "physical_bits": half and cpu.output_bits(half),
        "levels": half and len(cpu.format_of(half).levels),
    }


def ungiven(found: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What of that is another where roots are not given, by their registers: TCR_EL1 is as it was
    given, without the bits that turn their halves off."""
    return {**dict.fromkeys(names), "tcr": hex(_given_tcr(int(found["tcr"], 16), names))}


def _given_tcr(tcr: int, lost: Collection[str]) -> int:
    """TCR_EL1 without what turns off the halves whose roots were not given."""
    return tcr & ~sum(EPD[name] for name in lost)


def rootless(found: Mapping[str, Any]) -> dict[str, Any]:
    """What of that is another where it is not known where the root is of the half that is on."""
    registers = zip(("ttbr0", "ttbr1"), found["halves"], strict=True)
    halves = [{**half, "root": None} for half in found["halves"]]
    unknown = {name: None for name, half in registers if half["root"] is not None}
    return {**unknown, "halves": halves}
