"""Known departures of QEMU's TCG from arm64's rules, each with its evidence.

The rules are those of the Arm ARM (DDI 0487), by its pseudocode.  What evidence says of the sources
of QEMU 7.2 and 10.0 was read in those of 7.2.22 and 10.0.13.  Those of 11.1 were not read: it is
seen to follow a rule, or not to, in what 11.1.3 does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from harness.check.arm64.matrix.judged import Arm64Quirk, Asked, chosen
from harness.check.quirk import Quirk, Version, expected_of, not_yet_run
from harness.paging.arm64.access import Reason
from harness.paging.arm64.bulk import REASONS, Outcomes
from harness.paging.arm64.cpu import NORMAL, Cpu, Sctlr, Tcr
from harness.paging.arm64.formats import UXN
from harness.paging.format import Format, Level, Pattern, Shape

RUNS: Final[tuple[Version, ...]] = ((7, 2, 22), (10, 0, 13), (11, 1, 3))
"""The versions of QEMU on which all layouts and the matrix of arm64 were run."""

_BLOCK: Final = Pattern(3, 1)


def _blocks_anywhere(cpu: Cpu, format: Format) -> Format:
    """Takes type 0b01 for a block at every level but that of pages."""
    grants = format.levels[0].shapes[-1].grants

    def block(level: Level) -> Level:
        if level.leaf is not None or level.pointer is None:
            return level
        points = level.pointer
        address = (field._replace(mask=field.mask & -level.size) for field in points.address[:1])
        shape = Shape(
            _BLOCK, False, (*address, *points.address[1:]), points.reserved, grants=grants
        )
        absent = tuple(pattern for pattern in level.absent if pattern != _BLOCK)
        return replace(level, shapes=(*level.shapes, shape), absent=absent, reserved=())

    return replace(format, levels=tuple(map(block, format.levels)))


def _without(ignored: int) -> Callable[[Cpu, Format], Format]:
    """Takes no notice of these bits of a descriptor where they must be 0: with an output size below
    52 bits, by the granules that have bits of an address there."""

    def changed(shape: Shape) -> Shape:
        kept = (part._replace(mask=part.mask & ~ignored) for part in shape.reserved)
        return replace(shape, reserved=tuple(part for part in kept if part.mask))

    def read(cpu: Cpu, format: Format) -> Format:
        return replace(format, levels=tuple(level.changed(changed) for level in format.levels))

    return read


def _fetches_by_ap2(asked: Asked, found: Outcomes) -> Outcomes:
    """Judges fetches by the AP[2] that is in memory."""
    if not asked.cpu.keeps_dirty_state:
        return found
    plain = asked.outcomes(replace(asked.cpu, tcr=asked.cpu.tcr & ~Tcr.HD))
    return chosen(asked.lanes.fetch, plain, found)


def _device_as_normal(asked: Asked, found: Outcomes) -> Outcomes:
    """Lets data in Device memory be anywhere."""
    refused = found.reason == REASONS.index(Reason.ALIGNMENT)
    if not refused.any():
        return found
    normal = int.from_bytes(bytes([NORMAL] * 8))
    return chosen(refused, asked.outcomes(replace(asked.cpu, mair=normal)), found)


def _wxn_as_data(asked: Asked, found: Outcomes) -> Outcomes:
    """Lets EL1 execute what is writable and PAN, by EPAN, keeps from its loads and stores."""
    if not (asked.cpu.epan and asked.cpu.wxn):
        return found
    lanes = asked.lanes
    exempt = (found.reason == REASONS.index(Reason.WXN)) & ~lanes.el0 & lanes.pan
    exempt &= found.walks.granted & np.uint64(UXN) != 0
    return chosen(
        exempt, asked.outcomes(replace(asked.cpu, sctlr=asked.cpu.sctlr & ~Sctlr.WXN)), found
    )


BLOCK_ANYWHERE: Final = Arm64Quirk(
    name="tcg-arm-block-anywhere",
    engine="tcg",
    since=(7, 2),
    until=(10, 0),
    runs=((7, 2, 22),),
    rule="a descriptor of type 0b01 is invalid at levels where no block can be"
    " (AArch64.DecodeDescriptorType, AArch64.BlockDescSupported)",
    departs="takes it for a block at every level above 3; at level -1 QEMU itself ends, with an"
    " assertion, where the access then faults",
    evidence="get_phys_addr_lpae in target/arm/ptw.c of 7.2 asks for level 3 alone; 10.0 has"
    " lpae_block_desc_valid, and follows the rule",
    reads=_blocks_anywhere,
)

SIZE_64K: Final = Arm64Quirk(
    name="tcg-arm-64k-ips",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="an output address beyond TCR_EL1.IPS is an address size fault (AArch64.OAOutOfRange)"
    "; bits 51:48 too, which 64K descriptors have in 15:12 on a processor with 52 bits",
    departs="with an output size below 52 bits it ignores bits 15:12",
    evidence="get_phys_addr_lpae in target/arm/ptw.c of 7.2 and 10.0 takes them into the address"
    " only where the output size is 52 bits, and compares without them; 11.1.3 departs as they do",
    reads=_without(0xF000),
)

SIZE_DS: Final = Arm64Quirk(
    name="tcg-arm-ds-ips",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="the same of bits 51:50, which descriptors have in 9:8 with TCR_EL1.DS=1",
    departs="with an output size below 52 bits, by IPS or by ID_AA64MMFR0_EL1.PARange, it ignores"
    " bits 9:8",
    evidence="the same function, for 4K and 16K, which bounds IPS by PARange; 11.1.3 departs as"
    " they do",
    reads=_without(0x300),
)

DBM_FETCH: Final = Arm64Quirk(
    name="tcg-arm-dbm-fetch",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="where hardware keeps the dirty state, AP[2] of a descriptor with DBM=1 counts as 0"
    " (AArch64.S1ApplyOutputPerms): EL1 does not execute what EL0 can write so, and with WXN"
    " nobody what is writable so",
    departs="lets fetches have the AP[2] that is in memory",
    evidence="get_phys_addr_lpae in target/arm/ptw.c of 7.2 and 10.0 clears AP[2] for stores alone;"
    " 11.1.3 departs as they do",
    judges=_fetches_by_ap2,
)

AT_DBM: Final = Quirk(
    name="tcg-arm-at-dbm",
    engine="tcg",
    since=(11, 1),
    runs=((11, 1, 3),),
    rule="AT of a write finds the permissions that a store would, AP[2] counting as 0 where"
    " hardware keeps the dirty state; only the descriptor is left as it is (AArch64.S1Translate,"
    " before AArch64.SettingDirtyStatePermitted)",
    departs="reports a permission fault for a page with DBM=1 and AP[2]=1",
    evidence="seen in PAR_EL1; stores to the same pages are made, and 7.2.22 and 10.0.13 follow the"
    " rule",
)

KEPT_CODE: Final = Quirk(
    name="tcg-arm-tlbi-keeps-code-of-large-page",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="TLBI VAE1 of any address in a block drops all that is cached for that block"
    ' ("TLB maintenance instructions")',
    departs="code that was executed in other pages' parts of the block is executed again, whatever"
    " the descriptors say now",
    evidence="seen by executing it; data of the same block is dropped. In accel/tcg/cputlb.c,"
    " tlb_flush_page_by_mmuidx_async_0 drops the data of the large page but clears the cache of"
    " jumps for one small page only, for every architecture",
)

TBID_HIT: Final = Quirk(
    name="tcg-arm-tbid-by-data",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="with TBI=1 and TBID=1 the tag of a pointer counts in a fetch, which faults"
    ' (AddrTop, AArch64.VAIsOutOfRange; "Address tagging")',
    departs="executes it where data was accessed by the pointer with that tag before, until a TLBI"
    " of the address",
    evidence="seen by executing it, as EL0 and EL1; a fetch after data by the pointer without a tag"
    " faults. In target/arm of 7.2 and 10.0, clean_data_tbi leaves the tag to the TLB, whose entry"
    " is then one for all accesses, and aa64_va_parameters heeds TBID where it is filled alone;"
    " tlbbits_for_regime drops the entries of all tags. 11.1.3 departs as they do",
)

EPAN_WXN: Final = Arm64Quirk(
    name="tcg-arm-epan-wxn",
    engine="tcg",
    since=(10, 0),
    runs=((10, 0, 13), (11, 1, 3)),
    rule="with WXN=1 EL1 does not execute what it may write; PSTATE.PAN keeps it from data alone"
    " (AArch64.S1ComputePermissions)",
    departs="lets EL1 execute with PAN and EPAN what EL1 could write and EL0 can execute",
    evidence="seen in 10.0.13 and 11.1.3; they follow the rule without PAN, without EPAN, and where"
    " EL0 cannot execute the page; 7.2 has no EPAN",
    judges=_wxn_as_data,
)

DEVICE_ALIGNED: Final = Arm64Quirk(
    name="tcg-arm-device-unaligned",
    engine="tcg",
    since=(7, 2),
    until=(11, 1),
    runs=((7, 2, 22), (10, 0, 13)),
    rule="data in Device memory that is not aligned has an alignment fault, before its permissions"
    " are looked at (R_XCHFJ; AArch64.S1HasAlignmentFault)",
    departs="accesses it as Normal memory",
    evidence="seen in 7.2.22 and 10.0.13, by the first access after a TLBI of the address; 11.1.3"
    " follows the rule",
    judges=_device_as_normal,
)

JUDGED: Final = (BLOCK_ANYWHERE, SIZE_64K, SIZE_DS, DBM_FETCH, EPAN_WXN, DEVICE_ALIGNED)
"""Those that the matrix judges."""

KNOWN: Final[Mapping[str, Quirk]] = {
    quirk.name: quirk for quirk in (*JUDGED, AT_DBM, KEPT_CODE, TBID_HIT)
}
"""All of them by name."""


def not_run_on(version: Version) -> tuple[str, ...]:
    """That TCG was not yet run in this version, in a sentence; none where it was."""
    return not_yet_run({"tcg": (version, RUNS)})


def judged_of(engine: str, version: Version) -> tuple[Arm64Quirk, ...]:
    """Those that the matrix judges and that are to be expected of an engine in a version."""
    return tuple(one for one in JUDGED if expected_of(one, engine, version))
