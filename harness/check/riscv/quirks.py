"""Known departures of QEMU's TCG from RISC-V's rules, each with its evidence.

The rules are those of the privileged specification 1.13, named by section.  What the matrix judges
is predicted lane by lane, and all of it is compared: a quirk that does not show where it should is
news where the rule is followed instead, and else a disagreement.

What evidence says of the sources of QEMU 7.2 and 10.0 was read in those of 7.2.22 and 10.0.13.
Those of 11.1 were not read: it is seen to follow a rule, or not to, in what 11.1.3 does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from harness.check.quirk import Quirk, Version, expected_of, not_yet_run
from harness.check.riscv.matrix.chain import Lanes
from harness.check.riscv.matrix.hart import Hart
from harness.check.riscv.matrix.judged import Asked, Expected, RiscvQuirk
from harness.paging.bulk import Bytes
from harness.paging.format import Shape
from harness.paging.memory import Mask
from harness.paging.riscv.access import Cause, Kind, Reason, page_fault
from harness.paging.riscv.bulk import ALLOWED, REASONS
from harness.paging.riscv.formats import N

RUNS: Final[tuple[Version, ...]] = ((7, 2, 22), (10, 0, 13), (11, 1, 3))
"""The versions of QEMU on which all layouts and the matrix of RISC-V were run."""

_PAGE_FAULTS = np.array([page_fault(kind) for kind in Kind], np.uint8)


def _accepts(shape: Shape, reason: str) -> Shape:
    """The shape without what is reserved or forbidden for a reason, of which the words begin so."""
    return replace(
        shape,
        reserved=tuple(part for part in shape.reserved if not part.reason.startswith(reason)),
        forbidden=tuple(part for part in shape.forbidden if not part.reason.startswith(reason)),
    )


def _leaves_accept(shape: Shape, reason: str) -> Shape:
    return shape if shape.points else _accepts(shape, reason)


def _high_bits(hart: Hart, shape: Shape) -> Shape:
    return _accepts(shape, "bits ") if hart.svnapot or hart.pbmte else shape


def _pbmt3(hart: Hart, shape: Shape) -> Shape:
    return _leaves_accept(shape, "PBMT=3")


def _pbmte(hart: Hart, shape: Shape) -> Shape:
    return _leaves_accept(shape, "PBMT where") if hart.pbmte else shape


def _n_without_svnapot(hart: Hart, shape: Shape) -> Shape:
    return _leaves_accept(shape, "N where") if hart.pbmte and not hart.svnapot else shape


def _any_napot(hart: Hart, shape: Shape) -> Shape:
    return _leaves_accept(_leaves_accept(shape, "N where"), "a NAPOT page")


def _napot_marks(asked: Asked, made: Expected) -> Expected:
    if not asked.hart.svnapot:
        return made
    walks = asked.walks(_any_napot)
    loads_first = np.where(asked.lanes.kind == Kind.AMO, np.uint8(Kind.READ), asked.lanes.kind)
    found = asked.judge(walks, loads_first)
    wrong = (made.reason == REASONS.index(Reason.RESERVED)) & (walks.raw & np.uint64(N) != 0)
    return replace(made, sets=np.where(wrong, found.sets, made.sets))


def _page_fault_without_table(asked: Asked, made: Expected) -> Expected:
    missing = made.reason == REASONS.index(Reason.NO_MEMORY)
    cause = np.where(missing, _PAGE_FAULTS.take(asked.lanes.kind), made.cause)
    return replace(made, cause=cause)


def _pages_of_32_bits(asked: Asked, made: Expected) -> Expected:
    """Pages where no memory is are beyond 32 bits: of the other bits all lead to memory."""
    if asked.hart.xlen != 32:
        return made
    walks = made.walks
    found = asked.judge(walks, asked.lanes.kind)
    wrapped = (found.cause == ALLOWED) & ~made.backed
    low = walks.physical & np.uint64((1 << 32) - 1)
    return replace(
        made,
        walks=replace(walks, physical=np.where(wrapped, low, walks.physical)),
        cause=np.where(wrapped, found.cause, made.cause),
        sets=np.where(wrapped, found.sets, made.sets),
        free=np.where(wrapped, np.uint64(0), made.free),
        backed=np.ones_like(made.backed),
    )


def _by_mprv_alone(lanes: Lanes) -> Mask:
    return lanes.mxr & lanes.mprv


def _access_fault_before_store(cause: Bytes, loads: Bytes, backed: Mask) -> Bytes:
    reads = (cause == Cause.STORE_PAGE) & ~backed & (loads == ALLOWED)
    return np.where(reads, np.uint8(Cause.STORE_ACCESS), cause)


def _faults_of_loads(cause: Bytes, loads: Bytes, backed: Mask) -> Bytes:
    unreadable, found = (loads != ALLOWED) | ~backed, cause.copy()
    for store, load in (
        (Cause.STORE_PAGE, Cause.LOAD_PAGE),
        (Cause.STORE_ACCESS, Cause.LOAD_ACCESS),
    ):
        found[unreadable & (cause == store)] = load
    return found


_WALKER: Final = "get_physical_address in target/riscv/cpu_helper.c"

AMO_LOAD: Final = RiscvQuirk(
    name="tcg-riscv-amo-load",
    engine="tcg",
    since=(7, 2),
    until=(10, 0),
    runs=((7, 2, 22),),
    rule="AMOs never raise load page-fault exceptions"
    ' ("Addressing and Memory Protection" of Sv32), nor load access faults'
    ' ("Machine Cause (mcause) Register")',
    departs="reports a fault of the load that an AMO begins with as a load's",
    evidence="for a guest of one processor, tcg/tcg-op.c makes a load and a store of an AMO"
    " (do_nonatomic_op_i64), in 7.2 and in 10.0; 10.0 marks the instruction"
    " (RISCV_UW2_ALWAYS_STORE_AMO, gen_amo in target/riscv/translate.c), reports such a fault as a"
    " store's (riscv_cpu_do_interrupt), and follows the rule",
    amo=_faults_of_loads,
)

AMO_READS_FIRST: Final = RiscvQuirk(
    name="tcg-riscv-amo-reads-first",
    engine="tcg",
    since=(7, 2),
    runs=RUNS,
    rule="a page fault of the translation comes before an access fault at the physical address"
    ' ("Machine Cause (mcause) Register", table of priorities)',
    departs="reports the access fault of an AMO to a page without memory which a load may use and a"
    " store may not",
    evidence="for a guest of one processor, an AMO is made a load and a store (do_nonatomic_op_i64,"
    " in tcg/tcg-op.c of 7.2 and tcg/tcg-op-ldst.c of 10.0): the load ends before the store is"
    " translated; 11.1.3 departs as they do",
    amo=_access_fault_before_store,
)

MPRV_CODE: Final = Quirk(
    name="tcg-riscv-mprv-code",
    engine="tcg",
    since=(7, 2),
    until=(10, 0),
    runs=((7, 2, 22),),
    rule="with MPRV=1 loads and stores are translated as those of the mode in MPP"
    ' ("Memory Privilege in mstatus Register")',
    departs="data at a virtual address that M-mode has just executed from is not translated: what"
    " M-mode fetches and what it loads by MPRV share a TLB",
    evidence="seen in accesses of the guest; the same ones by S-mode and U-mode follow the rule."
    " riscv_cpu_mmu_index in target/riscv/cpu_helper.c of 7.2 answers the privilege alone;"
    " riscv_env_mmu_index of 10.0 asks for MPRV and MPP where it is not for a fetch, and 10.0"
    " follows the rule",
)

PBMTE_WITHOUT_SVPBMT: Final = Quirk(
    name="tcg-riscv-pbmte-without-svpbmt",
    engine="tcg",
    since=(7, 2),
    until=(10, 0),
    runs=((7, 2, 22),),
    rule="menvcfg.PBMTE is read-only zero without Svpbmt"
    ' ("Machine Environment Configuration (menvcfg) Register")',
    departs="lets it be set, and PBMT stays reserved",
    evidence="seen with svpbmt=off; write_menvcfg and write_menvcfgh in target/riscv/csr.c of 7.2"
    " do not ask for the extension; those of 10.0 do, and it follows the rule",
)

JUDGED: Final = (
    RiscvQuirk(
        name="tcg-riscv-table-without-memory",
        engine="tcg",
        since=(7, 2),
        until=(10, 0),
        runs=((7, 2, 22),),
        rule="an entry that would be read from where no memory is raises an access fault"
        ' ("Virtual Address Translation Process", step 2)',
        departs="raises a page fault",
        evidence=f"{_WALKER} of 7.2 takes a failed read for TRANSLATE_FAIL; 10.0 has"
        " TRANSLATE_PMA_FAIL there, and follows the rule",
        judges=_page_fault_without_table,
    ),
    RiscvQuirk(
        name="tcg-riscv-reserved-60-54",
        engine="tcg",
        since=(7, 2),
        until=(10, 0),
        runs=((7, 2, 22),),
        rule='bits 60:54 of an entry are reserved and fault ("Sv39")',
        departs="ignores them, in pointers and in leaves, on a processor with Svnapot or Svpbmt",
        evidence=f"{_WALKER} of 7.2 looks at them only where neither is there; 10.0"
        " tests PTE_RESERVED, and follows the rule",
        reads=_high_bits,
    ),
    RiscvQuirk(
        name="tcg-riscv-pbmt3",
        engine="tcg",
        since=(7, 2),
        until=(10, 0),
        runs=((7, 2, 22),),
        rule='PBMT=3 in a leaf is reserved and faults ("Svpbmt")',
        departs="accepts it",
        evidence=f"{_WALKER} of 7.2 masks PBMT away, whatever it is; 10.0 tests for 3,"
        " and follows the rule",
        reads=_pbmt3,
    ),
    RiscvQuirk(
        name="tcg-riscv-pbmte",
        engine="tcg",
        since=(7, 2),
        until=(10, 0),
        runs=((7, 2, 22),),
        rule="with menvcfg.PBMTE=0, PBMT is reserved"
        ' ("Machine Environment Configuration (menvcfg) Register")',
        departs="does not look at PBMTE",
        evidence=f"{_WALKER} of 7.2 asks for the extension and not for PBMTE; 10.0 asks"
        " for PBMTE, and follows the rule",
        reads=_pbmte,
    ),
    RiscvQuirk(
        name="tcg-riscv-n-without-svnapot",
        engine="tcg",
        since=(7, 2),
        until=(10, 0),
        runs=((7, 2, 22),),
        rule='without Svnapot, N is reserved and faults ("Sv39")',
        departs="ignores N in leaves, on a processor with Svpbmt",
        evidence=f"{_WALKER} of 7.2 masks N away where Svnapot or Svpbmt is there; 10.0"
        " tests N where Svnapot is not, and follows the rule",
        reads=_n_without_svnapot,
    ),
    RiscvQuirk(
        name="tcg-riscv-napot-marks",
        engine="tcg",
        since=(7, 2),
        until=(11, 1),
        runs=((7, 2, 22), (10, 0, 13)),
        rule="all checks of a leaf are made as part of, and before, the update of A and D"
        ' ("Addressing and Memory Protection" of Sv32)',
        departs="sets A and D of a NAPOT leaf that is reserved, and then faults",
        evidence=f"{_WALKER} of 7.2 and 10.0 tests the encoding of a NAPOT page after the"
        " update; 11.1.3 follows the rule",
        judges=_napot_marks,
    ),
    RiscvQuirk(
        name="tcg-riscv32-pages-of-32-bits",
        engine="tcg",
        since=(7, 2),
        until=(10, 0),
        runs=((7, 2, 22),),
        rule='Sv32 translates to physical addresses of 34 bits ("Sv32")',
        departs="drops bits 33:32 of the address of a page, not of a table",
        evidence="riscv_cpu_tlb_fill in target/riscv/cpu_helper.c of 7.2 masks the address with"
        " ~(tlb_size - 1), where tlb_size is a target_ulong, of 32 bits; in 10.0 it is a hwaddr, of"
        " 64, and the rule is followed",
        judges=_pages_of_32_bits,
    ),
    RiscvQuirk(
        name="tcg-riscv-masks-with-mxr",
        engine="tcg",
        since=(10, 0),
        until=(11, 1),
        runs=((10, 0, 13),),
        rule="pointer masking does not apply where MXR is in effect"
        ' ("Memory Accesses Subject to Pointer Masking")',
        departs="masks pointers with MXR set, unless MPRV is too",
        evidence="riscv_pm_get_pmm in target/riscv/cpu_helper.c of 10.0 asks for MPRV and MXR"
        " together; 11.1.3 follows the rule",
        unmasked=_by_mprv_alone,
    ),
    AMO_READS_FIRST,
    AMO_LOAD,
)
"""Those that the matrix judges, in the order in which they are applied."""

INFO_MEM_RESERVED: Final = Quirk(
    name="monitor-riscv-info-mem-reserved",
    engine="monitor",
    since=(7, 2),
    runs=RUNS,
    rule="an entry with reserved bits set raises a page fault, and maps nothing (Virtual Address"
    " Translation Process, steps 3 to 5)",
    departs="info mem lists it as any other",
    evidence="walk_pte in target/riscv/monitor.c looks at V, R, W and X alone",
)
INFO_MEM_HIGH_BITS: Final = Quirk(
    name="monitor-riscv-info-mem-high-bits",
    engine="monitor",
    since=(7, 2),
    runs=RUNS,
    rule="bits 63:54 of an entry are no part of the page number, and of a NAPOT page its lowest"
    " bits are none either (Sv39; Svnapot; Svpbmt)",
    departs="info mem takes all bits from 10 on for the page number",
    evidence="walk_pte in target/riscv/monitor.c shifts the entry, and masks nothing",
)

KNOWN: Final[Mapping[str, Quirk]] = {
    one.name: one
    for one in (
        *JUDGED,
        MPRV_CODE,
        PBMTE_WITHOUT_SVPBMT,
        INFO_MEM_RESERVED,
        INFO_MEM_HIGH_BITS,
    )
}
"""All of them by name."""


def not_run_on(version: Version) -> tuple[str, ...]:
    """That TCG was not yet run in this version, in a sentence; none where it was."""
    return not_yet_run({"tcg": (version, RUNS)})


def judged_of(engine: str, version: Version) -> tuple[RiscvQuirk, ...]:
    """Those that the matrix judges and that are to be expected of an engine in a version."""
    return tuple(one for one in JUDGED if expected_of(one, engine, version))
