"""Known departures of QEMU's TCG from arm64's rules, each with its evidence.

The rules are those of the Arm ARM (DDI 0487), by its pseudocode.  What evidence says of the sources
of QEMU 7.2 and 10.0 was read in those of 7.2.22 and 10.0.13.  Those of 11.1 were not read: it is
seen to follow a rule, or not to, in what 11.1.3 does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.check.quirk import Quirk, Version, not_yet_run

RUNS: Final[tuple[Version, ...]] = ((7, 2, 22), (10, 0, 13), (11, 1, 3))
"""The versions of QEMU on which all layouts of arm64 were run."""

BLOCK_ANYWHERE: Final = Quirk(
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
)

SIZE_64K: Final = Quirk(
    name="tcg-arm-64k-ips",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="an output address beyond TCR_EL1.IPS is an address size fault (AArch64.OAOutOfRange)"
    "; bits 51:48 too, which 64K descriptors have in 15:12 on a processor with 52 bits",
    departs="with IPS below 52 bits it ignores bits 15:12",
    evidence="get_phys_addr_lpae in target/arm/ptw.c of 7.2 and 10.0 takes them into the address"
    " only where the output size is 52 bits, and compares without them; 11.1.3 departs as they do",
)

SIZE_DS: Final = Quirk(
    name="tcg-arm-ds-ips",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="the same of bits 51:50, which descriptors have in 9:8 with TCR_EL1.DS=1",
    departs="with IPS below 52 bits it ignores bits 9:8",
    evidence="the same function, for 4K and 16K; 11.1.3 departs as they do",
)

DBM_FETCH: Final = Quirk(
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

KNOWN: Final[Mapping[str, Quirk]] = {
    quirk.name: quirk for quirk in (BLOCK_ANYWHERE, SIZE_64K, SIZE_DS, DBM_FETCH, AT_DBM, KEPT_CODE)
}
"""All of them by name."""


def not_run_on(version: Version) -> tuple[str, ...]:
    """That TCG was not yet run in this version, in a sentence; none where it was."""
    return not_yet_run({"tcg": (version, RUNS)})
