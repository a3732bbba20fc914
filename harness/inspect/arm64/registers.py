"""TTBRn_EL1, TCR_EL1 and MAIR_EL1, bit by bit ("TTBR0_EL1, Translation Table Base Register 0",
"TCR_EL1, Translation Control Register", "MAIR_EL1, Memory Attribute Indirection Register")."""

from __future__ import annotations

from typing import Final

from harness.inspect.arm64.memory_type import described
from harness.inspect.arm64.processor import NAMED
from harness.inspect.decode import Part, Register, Role
from harness.paging.arm64.cpu import OUTPUT_BITS, Cpu, Tcr
from harness.paging.format import bits


def read(cpu: Cpu, name: str, raw: int) -> Register:
    """What a value of ttbr0, ttbr1, tcr or mair says."""
    if name == "mair":
        return _mair(raw)
    return _tcr(raw) if name == "tcr" else _ttbr(cpu, name, raw)


def _ttbr(cpu: Cpu, name: str, raw: int) -> Register:
    """A root's register, of a processor whose TCR_EL1 is as the state has it."""
    half = cpu.low if name == "ttbr0" else cpu.high
    wide = half is not None and cpu.is_wide(half.granule)
    low = raw & (bits(47, 6) if wide else bits(47, 1))
    base = low | (raw >> 2 & 15) << 48 if wide else low
    section = NAMED[name]
    parts = [
        Part(bits(63, 48), "ASID", raw >> 48, _asid(cpu, name, raw >> 48), Role.KEY, section, ""),
        Part(bits(47, 6), "BADDR", raw & bits(47, 6), f"the root table is at {base:#x}",
             Role.ADDRESS, section, ""),
    ]  # fmt: skip
    said = f"bits 51:48 of the address, which is {base:#x}"
    if wide:
        parts += [
            Part(
                bits(5, 2), "BADDR[51:48]", (raw >> 2 & 15) << 48, said, Role.ADDRESS, section, ""
            ),
            Part(bits(1), "reserved", raw >> 1 & 1, "must be 0", Role.RESERVED, section, "RES0"),
        ]
    else:
        parts.append(
            Part(bits(5, 1), "BADDR", raw & bits(5, 1), "of a table of fewer than 64 bytes",
                 Role.ADDRESS, section, "")
        )  # fmt: skip
    private = "Common not Private: the ASID means the same on all processors (FEAT_TTCNP)"
    parts.append(
        Part(1, "CnP", raw & 1, private if raw & 1 else "of this processor", Role.KIND, section, "")
    )
    reserved = sum(part.mask & raw for part in parts if part.wrong)
    return Register(section, raw, "the root table is", base, reserved, tuple(parts))


def _asid(cpu: Cpu, name: str, asid: int) -> str:
    chosen = "ttbr1" if cpu.tcr & Tcr.A1 else "ttbr0"
    if name != chosen:
        return f"not used: that of {NAMED[chosen]} is (TCR_EL1.A1={int(chosen == 'ttbr1')})"
    whole = bool(cpu.tcr & Tcr.AS)
    kept = asid if whole else asid & 0xFF
    return f"address space {kept:#x} of the TLB (TCR_EL1.AS={int(whole)})"


def _mair(raw: int) -> Register:
    """MAIR_EL1: a memory type for each AttrIndx."""
    parts = list[Part]()
    for index in reversed(range(8)):
        octet, mask = raw >> 8 * index & 0xFF, bits(8 * index + 7, 8 * index)
        said = f"AttrIndx={index}: {described(octet)}"
        parts.append(Part(mask, f"Attr{index}", octet, said, Role.TYPE, NAMED["mair"], ""))
    return Register(NAMED["mair"], raw, "", None, 0, tuple(parts))


GRANULES: Final = (
    ("4K", "64K", "16K", "reserved"),
    ("reserved", "16K", "4K", "64K"),
)
"""By TG0, and by TG1."""

_FLAGS: Final = {
    7: ("EPD0", "TTBR0_EL1 is used", "the lower half is turned off"),
    22: ("A1", "the ASID is TTBR0_EL1's", "the ASID is TTBR1_EL1's"),
    23: ("EPD1", "TTBR1_EL1 is used", "the upper half is turned off"),
    36: ("AS", "the ASID has 8 bits", "the ASID has 16 bits"),
    37: ("TBI0", "bits 63:56 of the lower half's pointers count", "they are ignored"),
    38: ("TBI1", "bits 63:56 of the upper half's pointers count", "they are ignored"),
    39: ("HA", "AF=0 faults", "the processor sets AF"),
    40: ("HD", "AP[2] is as it says", "the processor clears AP[2] where DBM=1"),
    41: ("HPD0", "tables of the lower half withhold rights", "they withhold none"),
    42: ("HPD1", "tables of the upper half withhold rights", "they withhold none"),
    51: ("TBID0", "TBI0 is for fetches, too", "TBI0 is for data alone"),
    52: ("TBID1", "TBI1 is for fetches, too", "TBI1 is for data alone"),
    53: ("NFD0", "", "non-faulting loads of EL0 fail in the lower half"),
    54: ("NFD1", "", "non-faulting loads of EL0 fail in the upper half"),
    55: ("E0PD0", "EL0 reaches the lower half", "EL0 is kept out of the lower half"),
    56: ("E0PD1", "EL0 reaches the upper half", "EL0 is kept out of the upper half"),
    59: ("DS", "descriptors hold 48 bits", "descriptors hold 52 bits (4K and 16K)"),
}
"""Single bits: what they are called, and what they say when clear and when set."""

_NEEDS: Final = {40: 39, 51: 37, 52: 38}
"""Those that say nothing, set, unless another is set: HD needs HA, TBIDx TBIx."""

_CACHED: Final = ("non-cacheable", "write-back, write-allocate", "write-through", "write-back")
_SHARED: Final = ("non-shareable", "reserved", "outer shareable", "inner shareable")


def _tcr(raw: int) -> Register:
    """TCR_EL1."""
    found = dict[int, Part]()

    def add(high: int, low: int, name: str, meaning: str, role: Role = Role.KIND) -> None:
        mask = bits(high, low)
        value = (raw & mask) >> low
        why = "RES0, or of a feature that has no part in translation" * (role is Role.IGNORED)
        found[low] = Part(mask, name, value, meaning or why, role, NAMED["tcr"], why)

    for number, at in ((0, 0), (1, 16)):
        tsz, half = raw >> at & 63, ("lower", "upper")[number]
        add(at + 5, at, f"T{number}SZ", f"addresses of the {half} half have {64 - tsz} bits")
        for low, name, names in ((8, "IRGN", _CACHED), (10, "ORGN", _CACHED), (12, "SH", _SHARED)):
            low += at
            said = f"walks of the {half} half: {names[raw >> low & 3]}"
            add(low + 1, low, f"{name}{number}", said, Role.TYPE)
        add(at + 15, at + 14, f"TG{number}", f"{GRANULES[number][raw >> at + 14 & 3]} granule")
    ips = raw >> 32 & 7
    width = f"physical addresses have {OUTPUT_BITS[ips]} bits" if ips < 7 else "reserved"
    if ips < 7 and OUTPUT_BITS[ips] > 48 and not raw & Tcr.DS:
        width += " with pages of 64K, 48 with others (DS=0)"
    add(34, 32, "IPS", width)
    for bit, (name, clear, set_) in _FLAGS.items():
        said = (clear or "no effect", set_)[raw >> bit & 1]
        if bit in _NEEDS and raw >> bit & 1 and not raw >> _NEEDS[bit] & 1:
            said = f"comes to nothing with {_FLAGS[_NEEDS[bit]][0]}=0"
        add(bit, bit, name, said)
    taken = sum(part.mask for part in found.values())
    parts, bit = list(found.values()), 63
    while bit >= 0:
        low = bit
        while low and not taken >> low - 1 & 1 and not taken >> bit & 1:
            low -= 1
        if not taken >> bit & 1:
            add(bit, low, "ignored", "", Role.IGNORED)
            parts.append(found[low])
        bit = low - 1
    parts.sort(key=lambda part: -part.low)
    return Register(NAMED["tcr"], raw, "", None, 0, tuple(parts))
