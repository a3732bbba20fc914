"""The quirks of the engines that run x86.

In which lanes one applies follows from what was asked, by a second reading, and not from the
reference, so that neither a reference that is wrong as the engine is nor one that is wrong beside
it passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any, Final

import numpy as np

from harness.check.quirk import Quirk, Version, expected_of, not_yet_run
from harness.check.x86.cases import Cases, reads
from harness.check.x86.second_reading import NO_LAPSE, Errors, Lapse, Reading, Stop
from harness.paging.address import Span
from harness.paging.memory import Mask, within
from harness.paging.x86 import formats
from harness.paging.x86.access import Error, Kind
from harness.paging.x86.bulk import writes
from harness.paging.x86.cpu import Cpu, Cr4, Efer, Mode

QEMU_RUNS: Final[tuple[Version, ...]] = ((7, 2, 22), (8, 2, 2), (10, 0, 13), (11, 1, 3))
"""The versions of QEMU on which all layouts and the matrix were run: those of Debian 12, of Ubuntu
24.04, of Debian 13 and of its backports."""

BOCHS_RUNS: Final[tuple[Version, ...]] = ((2, 7), (3, 0))
"""The versions of Bochs on which they were: those of Debian 12 and of Debian 13."""

PVM_RUNS: Final[tuple[Version, ...]] = ((6, 18, 44),)
"""The kernels on whose kvm_pvm they were."""


@dataclass(frozen=True, kw_only=True)
class ErrorQuirk(Quirk):
    """A departure in error codes.

    lanes  where the engine departs
    error  the codes that it gives for those of the rules
    """

    lanes: Callable[[Reading], Mask]
    error: Callable[[Errors], Errors]


@dataclass(frozen=True, kw_only=True)
class AccessedQuirk(Quirk):
    """A departure in A of the entry at which a walk ends in a fault: the engine sets it.

    lanes  where it does
    """

    lanes: Callable[[Reading], Mask]


@dataclass(frozen=True, kw_only=True)
class Cr2Quirk(Quirk):
    """A departure in CR2: an exception that leaves it as it is writes the address to it.

    lanes  where it does
    """

    lanes: Callable[[Reading], Mask]


@dataclass(frozen=True, kw_only=True)
class DenialQuirk(Quirk):
    """A departure in addresses that the engine keeps for itself: whatever the tables say, it
    answers with a page fault of its own, which leaves the entries as any fault does.

    kept    the addresses, in which no window can be
    lanes   where the engine does
    errors  the error codes of which it gives one; shape (k, n)
    """

    kept: Span
    lanes: Callable[[Reading], Mask]
    errors: Callable[[Cases], Errors]


@dataclass(frozen=True)
class Basis:
    """By what accesses are judged.

    pdpte_reserved  in PAE paging, for an engine that has no PDPTE registers but reads and marks
                    PDPTEs as it does entries: the bits of one that make an access fault
    """

    cpu: Cpu
    cases: Cases
    pdpte_reserved: int | None = None


@dataclass(frozen=True, kw_only=True)
class BasisQuirk(Quirk):
    """A departure in what is judged: the engine treats entries as another processor would, or one
    access as another.

    lapse  by which a reader departs in the same lanes
    as_if  what the engine judges by in these, in place of what is there
    """

    lapse: Lapse
    as_if: Callable[[Basis], Basis]

    def lanes(self, reading: Reading) -> Mask:
        """The lanes in which an engine that reads as `reading` judges otherwise."""
        return reading.departs(self.lapse)


@dataclass(frozen=True, kw_only=True)
class CodeEndQuirk(Quirk):
    """A departure in how code that was fetched and begun ends: by a page fault of the engine's own
    at the instruction that should raise another exception.

    lanes  where the engine does
    error  the error code of that
    """

    lanes: Callable[[Reading], Mask]
    error: Callable[[Cpu], int]


FaultQuirk = ErrorQuirk | AccessedQuirk | Cr2Quirk | DenialQuirk | BasisQuirk | CodeEndQuirk


def _at_gigabyte_page(reading: Reading) -> Mask:
    """Denied accesses that come to a PDPTE with PS=1 in which no bit is set that is reserved
    whatever PS is."""
    cpu, walked = reading.asked.cpu, reading.walked
    if len(reading.asked.words) < 4:
        return np.zeros(len(walked.stop), np.bool_)
    beyond = formats.bits(51, cpu.maxphyaddr) if cpu.maxphyaddr < 52 else 0
    beyond |= 0 if cpu.efer & Efer.NXE else formats.XD
    mask, page = np.uint64(formats.P | formats.PS | beyond), np.uint64(formats.P | formats.PS)
    there: Mask = (walked.level == 2) & (walked.entry & mask == page)
    if there.any():
        there[there] = ~reading.take(there).allowed
    return there


WIDEST_PSE36: Final = 40
"""Bits of a physical address that a 4M page can have at most."""

PVM_SLOT = Span.of(0xFFFF_8000_0000_0000, 512 << 30)
"""The addresses that kvm_pvm keeps for itself while the guest runs in user mode."""

PVM_CPU_AREA = 24 << 10
PVM_CPU_STEP = 2 << 20
"""Bytes that each processor of the host has there, and from one processor's to the next's."""


def _in_pvm_slot(reading: Reading) -> Mask:
    """User accesses there."""
    return within(reading.asked.cases.address, PVM_SLOT) & reading.by_user


def _pvm_errors(cases: Cases) -> Errors:
    """P and RSVD tell whether the host's processor has something there."""
    absent = np.full(len(cases), int(Error.U), np.uint32)
    absent[writes(cases.kind)] |= int(Error.W)
    absent[cases.kind == Kind.FETCH] |= int(Error.I)
    offset = cases.address - np.uint64(PVM_SLOT.first)
    in_area = offset % np.uint64(PVM_CPU_STEP) < np.uint64(PVM_CPU_AREA)
    return np.stack([absent, absent | np.where(in_area, np.uint32(Error.P | Error.RSVD), 0)])


def _emulated_under_smap(reading: Reading) -> Mask:
    """Supervisor fetches from a user page, which SMEP=0 allows and SMAP does not concern."""
    cpu, cases = reading.asked.cpu, reading.asked.cases
    lanes: Mask = (cases.kind == Kind.FETCH) & ~reading.by_user & ~cases.ac
    lanes &= cases.address != np.uint64((1 << 64) - 1)
    if not cpu.cr4 & Cr4.SMAP or not lanes.any():
        return np.zeros_like(lanes)
    return lanes & reading.user_page & reading.allowed


def _on(basis: Basis, **other: Any) -> Basis:
    """The same accesses on another processor."""
    return replace(basis, cpu=replace(basis.cpu, **other))


def _beyond(cpu: Cpu) -> int:
    """The bits of an entry that are beyond the address."""
    return formats.bits(63, cpu.maxphyaddr)


def _of_no_stack(basis: Basis) -> Basis:
    pushes = basis.cases.kind == Kind.PUSH
    kind = np.where(pushes, np.uint8(Kind.WRITE), np.uint8(Kind.READ))
    return replace(basis, cases=replace(basis.cases, kind=kind))


def _explicit(basis: Basis) -> Basis:
    """Implicit accesses as explicit ones of the supervisor."""
    cases = basis.cases
    user = cases.user if cases.implicit is None else cases.user & ~cases.implicit
    return replace(basis, cases=replace(cases, implicit=None, user=user))


def _canonical_for_users(basis: Basis) -> Basis:
    """The user's addresses with the bits that no level translates taken from the one below."""
    if not basis.cpu.long:
        return basis
    cases, above = basis.cases, np.int64(64 - _address_bits(basis.cpu))
    canonical = (cases.address.view(np.int64) << above >> above).view(np.uint64)
    user = cases.user if cases.implicit is None else cases.user & ~cases.implicit
    return replace(basis, cases=replace(cases, address=np.where(user, canonical, cases.address)))


def _address_bits(cpu: Cpu) -> int:
    """The bits of an address that the tables of long mode translate."""
    return 57 if cpu.cr4 & Cr4.LA57 else 48


NO_WRITE: Final = 0xAAAA_AAAA
"""The bit of each key in PKRU and PKRS that denies writes."""


def _by_who_accesses(basis: Basis) -> Basis:
    """The rights by which 3.0 lets the supervisor access a page, whose ever the page is."""
    cpu = basis.cpu
    rights = cpu.pkrs if cpu.cr4 & Cr4.PKS else 0
    rights |= cpu.pkru & NO_WRITE if cpu.cr4 & Cr4.PKE else 0
    return _on(basis, cr4=cpu.cr4 | Cr4.PKE | Cr4.PKS, pkru=rights, pkrs=rights)


def _user_locked_out_of_supervisor_page(reading: Reading) -> Mask:
    """User accesses to data in supervisor pages whose key PKRU denies them."""
    cpu, cases, walked = reading.asked.cpu, reading.asked.cases, reading.walked
    if not (cpu.cr4 & Cr4.PKE and cpu.efer & Efer.LMA):
        return np.zeros(len(walked.stop), np.bool_)
    key = walked.entry >> np.uint64(formats.KEY_SHIFT) & np.uint64(formats.KEYS - 1)
    rights = np.uint64(cpu.pkru) >> (key << np.uint64(1))
    denied = (rights & np.uint64(1) != 0) | (rights & np.uint64(2) != 0) & writes(cases.kind)
    lanes: Mask = denied & reading.by_user & (cases.kind != Kind.FETCH)
    lanes &= (walked.stop == Stop.PAGE) & ~reading.separated
    if lanes.any():
        lanes[lanes] = ~reading.take(lanes).user_page
    return lanes


_WALKER: Final = (
    "mmu_translate in excp_helper.c of target/i386/tcg/system, which before QEMU 10 was"
    " target/i386/tcg/sysemu"
)

RESERVED_WITHOUT_PRESENT = ErrorQuirk(
    name="tcg-reserved-bit-fault-lacks-p",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="A page fault for a reserved bit has P=1 in its error code: the entry is present"
    " (SDM volume 3A, 4.7).",
    departs="The error code has RSVD without P: 08, 0a, 0c, 0e, 18, 1c for 09, 0b, 0d, 0f, 19, 1d.",
    evidence="Seen on reserved bits at every level; KVM and Bochs set P on the same tables.",
    lanes=lambda reading: reading.walked.stop == Stop.RESERVED,
    error=lambda error: error & ~np.uint32(Error.P),
)

GIGABYTE_PAGE_ACCESSED = AccessedQuirk(
    name="tcg-faulting-1g-page-is-accessed",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="A is set when an entry is used for a translation (SDM volume 3A, 4.8): an access that"
    " faults leaves the last entry as it was, as TCG itself does for 4K and 2M pages.",
    departs="A denied access to a 1G page, or one to a misaligned 1G page, sets A in the PDPTE.",
    evidence="Seen in the probes of the layouts page-sizes, linux-4, linux-5 and malformed. The"
    f" walker sets A in a PDPTE before it looks at PS ({_WALKER}).",
    lanes=_at_gigabyte_page,
)

GIGABYTE_PAGE_WITHOUT_CPUID = BasisQuirk(
    name="tcg-1g-page-without-cpuid",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="PS is reserved in a PDPTE where CPUID shows no 1-GByte pages (SDM volume 3A, 4.5.4).",
    departs="A PDPTE with PS=1 maps a 1G page all the same.",
    evidence=f"Seen with -cpu max,-pdpe1gb: the walker does not ask for the CPUID bit ({_WALKER}).",
    lapse=Lapse.GIGABYTE,
    as_if=lambda basis: _on(basis, page1gb=True),
)

LARGE_PAGE_ADDRESS = BasisQuirk(
    name="tcg-4m-page-address-is-never-too-wide",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="Of a 4M page's entry, the bits 21:13 that hold no address bit of the processor are"
    " reserved: all without PSE-36, else those for addresses beyond MAXPHYADDR (SDM volume 3A,"
    " table 4-4).",
    departs="Bits 20:13 always hold bits 39:32 of the address; bit 21 alone is reserved.",
    evidence="Seen with MAXPHYADDR 36 and 39, and with -pse36: the walker gathers the bits whatever"
    f" CPUID shows ({_WALKER}).",
    lapse=Lapse.PAGE_4M,
    as_if=lambda basis: (
        _on(basis, pse36=True, maxphyaddr=WIDEST_PSE36) if basis.cpu.mode is Mode.BITS_32 else basis
    ),
)

PML4E_BIT_8_IGNORED = BasisQuirk(
    name="tcg-pml4e-bit-8-is-ignored",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="Bit 8 of a PML4E or PML5E must be zero on AMD's processors (APM volume 2, 5.3.3).",
    departs="It is ignored, as on Intel's, whatever the vendor that CPUID shows.",
    evidence="Seen with vendor=AuthenticAMD; KVM on AMD's processors takes the bit for reserved.",
    lapse=Lapse.BIT_8,
    as_if=lambda basis: _on(basis, amd=False),
)

PUSH_IS_A_WRITE = BasisQuirk(
    name="tcg-non-canonical-push-is-gp",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="A stack reference to an address that is not canonical is #SS(0) (SDM volume 3A, 6.15).",
    departs="It is #GP(0), as any other access.",
    evidence="Seen in supervisor and user mode; KVM gives #SS at the same addresses. The walker is"
    f" not told by which segment an access comes ({_WALKER}).",
    lapse=Lapse.STACK,
    as_if=_of_no_stack,
)

IMPLICIT_HEEDS_AC = BasisQuirk(
    name="tcg-implicit-access-heeds-ac",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="With SMAP, an implicit supervisor access to a user page faults whatever EFLAGS.AC says"
    " (SDM volume 3A, 4.6.1).",
    departs="A descriptor is loaded from there in supervisor mode with EFLAGS.AC=1.",
    evidence="Seen with a MOV to FS of a selector in the LDT; KVM faults on the same tables. In"
    " user mode TCG faults too. It chooses how to translate by EFLAGS.AC and CPL for these accesses"
    " as for any (cpu_mmu_index_kernel, in target/i386).",
    lapse=Lapse.IMPLICIT,
    as_if=_explicit,
)

PDPTES_ARE_ENTRIES = BasisQuirk(
    name="tcg-pdptes-are-entries",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="The PDPTEs are loaded into registers, and checked, by MOV CR3: #GP(0) for one that is"
    " present with a reserved bit set; they are not marked as accessed (SDM volume 3A, 4.4.1).",
    departs="They are read at every walk, and A is set in them; a reserved bit makes the access"
    " fault and not MOV CR3, and bits 2:1 and 8:5 are not reserved.",
    evidence="Seen with each bit of a PDPTE: MOV CR3 loads no PDPTEs, the walker reads and marks"
    f" them as the entries of a third level ({_WALKER}).",
    lapse=Lapse.PDPTES,
    as_if=lambda basis: replace(basis, pdpte_reserved=_beyond(basis.cpu)),
)

NON_CANONICAL_SETS_CR2 = Cr2Quirk(
    name="tcg-non-canonical-address-is-in-cr2",
    engine="tcg",
    since=(7, 2),
    until=(7, 2, 22),
    again=(((8, 0), (10, 0, 6)), ((10, 1), (10, 1, 2))),
    runs=((8, 2, 2),),
    rule="CR2 holds the address that caused a page fault; no other exception writes it (SDM volume"
    " 3A, 2.5 and 6.15).",
    departs="#GP at an address that is not canonical writes the address to CR2.",
    evidence="Seen on 8.2.2 with every kind of access in both modes of long addresses; 7.2.22,"
    " 10.0.13, 11.1.3, KVM and Bochs leave CR2. QEMU's commit 3563362ddfae, in 7.2.0, began it;"
    " df9a3372ddeb (Fix CR2 handling for non-canonical addresses) ended it, and was taken into"
    " 7.2.22, 10.0.6 and 10.1.2.",
    lanes=lambda reading: reading.walked.stop == Stop.OUTSIDE,
)

USER_ADDRESS_UNCHECKED = BasisQuirk(
    name="tcg-user-address-need-not-be-canonical",
    engine="tcg",
    since=(7, 2, 10),
    until=(7, 2, 11),
    again=(((8, 2, 2), (8, 2, 3)),),
    runs=((8, 2, 2),),
    rule="An access by an address that is not canonical is #GP(0), or #SS(0) on the stack (SDM"
    " volume 1, 3.3.7.1).",
    departs="User mode reaches what the bits lead to that the levels translate: the bits above them"
    " are not looked at. CR2 of a page fault has the whole address.",
    evidence="Seen on 8.2.2 with every kind of access in both modes of long addresses; the"
    " supervisor's accesses follow the rule. QEMU's commit b1661801c184 takes user mode for a mode"
    " of 32 bits, where upper bits of an address do not count (is_mmu_index_32 in"
    " target/i386/cpu.h); of releases, 7.2.10 and 8.2.2 have it without 2cc68629a6fc, which mends"
    " it.",
    lapse=Lapse.UNCHECKED,
    as_if=_canonical_for_users,
)

_BOCHS_WALKER: Final = "cpu/paging.cc of Bochs"

BOCHS_IMPLICIT_HEEDS_AC = BasisQuirk(
    name="bochs-implicit-access-heeds-ac",
    engine="bochs",
    since=(2, 7),
    runs=BOCHS_RUNS,
    rule="With SMAP, an implicit supervisor access to a user page faults whatever EFLAGS.AC says"
    " (SDM volume 3A, 4.6.1), and with LASS one to an address with bit 63 clear"
    " (linear-address-space separation).",
    departs="A descriptor is loaded from there with EFLAGS.AC=1, in supervisor and in user mode;"
    " with LASS, from the lower half of the addresses too.",
    evidence="Seen with a MOV to FS of a selector in the LDT; KVM faults on the same tables. The"
    f" walker asks for EFLAGS.AC alone (check_leaf_entry_faults in {_BOCHS_WALKER}), and so does"
    " LASS (IsCanonicalAccess in cpu/access.cc).",
    lapse=Lapse.AC,
    as_if=_explicit,
)

BOCHS_BIT_8_IGNORED = BasisQuirk(
    name="bochs-pml4e-bit-8-is-ignored",
    engine="bochs",
    since=(2, 7),
    runs=BOCHS_RUNS,
    rule="Bit 8 of a PML4E or PML5E must be zero on AMD's processors (APM volume 2, 5.3.3).",
    departs="It is ignored, as on Intel's, by the model ryzen too.",
    evidence="Seen with ryzen; KVM on AMD's processors takes the bit for reserved. The reserved"
    f" bits of an entry are the same for every model ({_BOCHS_WALKER}).",
    lapse=Lapse.BIT_8,
    as_if=lambda basis: _on(basis, amd=False),
)

BOCHS_KEYS_BY_ACCESS = BasisQuirk(
    name="bochs-keys-go-by-who-accesses",
    engine="bochs",
    since=(2, 7),
    runs=BOCHS_RUNS,
    rule="PKRU gives the rights of keys in user pages, and IA32_PKRS those in supervisor pages,"
    " whoever accesses them (SDM volume 3A, 4.6.2).",
    departs="The supervisor's accesses to any page go by IA32_PKRS, its writes with CR0.WP=1 by the"
    " write-disable bits of PKRU as well.",
    evidence="Seen with every key and every right; TCG follows the rules. It is handle_pkeys in"
    f" {_BOCHS_WALKER}, which was mended after 3.0 (72d55ca09, April 2026).",
    lapse=Lapse.KEYS,
    as_if=_by_who_accesses,
)

BOCHS_KEY_OF_SUPERVISOR_PAGE = ErrorQuirk(
    name="bochs-pkru-is-asked-about-supervisor-pages",
    engine="bochs",
    since=(2, 7),
    runs=BOCHS_RUNS,
    rule="A user access to a supervisor page is denied by U/S alone: no protection key plays a"
    " part, and PK is clear in the error code (SDM volume 3A, 4.6.2 and 4.7).",
    departs="PK is set where PKRU would deny the access in a user page.",
    evidence="Seen with every key and every right; TCG follows the rules. It is handle_pkeys in"
    f" {_BOCHS_WALKER}, which was mended after 3.0 (72d55ca09, April 2026).",
    lanes=_user_locked_out_of_supervisor_page,
    error=lambda error: error | np.uint32(Error.PK),
)

BOCHS_LOSES_ITS_PAGES = Quirk(
    name="bochs-pkru-takes-the-supervisor-s-pages",
    engine="bochs",
    since=(2, 7),
    runs=BOCHS_RUNS,
    rule="PKRU says nothing of supervisor pages (SDM volume 3A, 4.6.2).",
    departs="With CR0.WP=1, CR4.PKE=1 and the write-disable bit of key 0 in PKRU, the supervisor"
    " can write no page of key 0: not to its own stack either, and Bochs panics.",
    evidence="Follows from bochs-keys-go-by-who-accesses, and was seen.",
)

PVM_KEEPS_A_SLOT = DenialQuirk(
    name="pvm-keeps-user-mode-out-of-a-slot",
    engine="kvm_pvm",
    since=(6, 18, 44),
    runs=PVM_RUNS,
    rule="What an access comes to is decided by the guest's own tables, and so are P and RSVD of"
    " its error code (SDM volume 3A, 4.6 and 4.7).",
    departs="Every user access to ffff800000000000..ffff807fffffffff, root slot 256, is a page"
    " fault, to user pages too. P and RSVD are both clear, or, in the 24 KiB at the start of the"
    " 2 MiB there that belong to the processor of the host that runs the guest, both set; I"
    " shows a fetch even with NXE=0 and SMEP=0. No A is set. Supervisor accesses follow the rules.",
    evidence="Seen on both processors of a host: of the root slots 8 to 511,"
    " with user, supervisor and absent pages read, written and fetched, this one alone departs,"
    " after INVLPG, MOV CR3 and a change of CR4.PGE alike; and so do all of 9,600 user accesses to"
    " random entries in it, under every state of WP, NXE, SMEP and SMAP. TCG follows the rules"
    " on the same tables. PVM runs the guest at CPL 3 on tables that keep entries of the host in"
    " the upper half: arch/x86/kvm/pvm/host_mmu.c, clone_host_mmu, of virt-pvm/linux.",
    kept=PVM_SLOT,
    lanes=_in_pvm_slot,
    errors=_pvm_errors,
)

PVM_EMULATES_UNDER_SMAP = CodeEndQuirk(
    name="pvm-reads-supervisor-code-under-smap",
    engine="kvm_pvm",
    since=(6, 18, 44),
    runs=PVM_RUNS,
    rule="SMAP concerns data accesses: with SMEP=0 the supervisor executes user pages whatever"
    " EFLAGS.AC is (SDM volume 3A, 4.6.1).",
    departs="The code is fetched and runs, but UD2 in it, which KVM emulates, raises a page fault"
    " with P, and I if NXE=1, at its own address.",
    evidence="Seen under every state of WP and NXE with SMEP=0 and SMAP=1; not"
    " with EFLAGS.AC=1, SMAP=0, a supervisor page, user code, or in the last byte of all addresses."
    " TCG follows the rules.",
    lanes=_emulated_under_smap,
    error=lambda cpu: Error.P | (Error.I if cpu.nxe else 0),
)

DEBUG_WALKER = Quirk(
    name="debug-walker-ignores-reserved-bits",
    engine="monitor",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="An entry with a reserved bit set translates nothing (SDM volume 3A, 4.7).",
    departs="gva2gpa, info tlb and memsave walk through it as if the bit were clear.",
    evidence="QEMU's debug walker tests P and PS alone: target/i386/helper.c,"
    " x86_cpu_get_phys_page_attrs_debug, and target/i386/monitor.c.",
)

TLB_PRINTS_ENTRIES = Quirk(
    name="info-tlb-prints-bits-of-entries",
    engine="monitor",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="A page is at the address that the address bits of its entry hold; bits 39:32 of a 4M"
    " page's are bits 20:13 there (SDM volume 3A, tables 4-4, 4-9 and 4-11).",
    departs="Outside long mode info tlb prints all bits of the entry from 12 up, or of a large page"
    " from 21 up in 32-bit paging and from 20 up in PAE paging: with XD, and without bits 39:32.",
    evidence="Seen with tables of 32-bit and PAE paging that have such bits set; gva2gpa gives the"
    " right address of the same pages: target/i386/monitor.c, tlb_info_32 and tlb_info_pae32.",
)

KEPT_CODE = Quirk(
    name="tcg-invlpg-keeps-code-of-large-page",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="INVLPG of any address in a large page drops all that is cached for that page (SDM volume"
    " 3A, 4.10.4.1).",
    departs="Code that was executed in other 4K parts of the page is executed again, whatever the"
    " entries say now.",
    evidence="Seen by executing it; KVM drops it on the same tables. In accel/tcg/cputlb.c,"
    " tlb_flush_page_by_mmuidx_async_0 drops the data of the large page but clears the cache of"
    " jumps for one small page only.",
)

ENDS_AT_LAST_BYTE = Quirk(
    name="tcg-ends-at-the-last-byte",
    engine="tcg",
    since=(7, 2),
    runs=QEMU_RUNS,
    rule="An instruction may be at any canonical address (SDM volume 1, 3.3.7.1).",
    departs="QEMU ends itself (SIGABRT) at an instruction in the last byte of all addresses.",
    evidence="Seen at every size of page, in supervisor and user mode; KVM executes it by the"
    " rules. The address of the instruction is kept in pc_save, where -1 stands for none, and"
    " asserted not to be that (target/i386/tcg/translate.c, gen_update_eip_cur).",
)

PVM_KEEPS_XD_PAGE = Quirk(
    name="pvm-invlpg-keeps-xd-page-without-nxe",
    engine="kvm_pvm",
    since=(6, 18, 44),
    runs=PVM_RUNS,
    rule="INVLPG drops the translation of its address, also after EFER.NXE was cleared; the next"
    " access walks, and XD is then a reserved bit (SDM volume 3A, 4.10.4.1 and 4.7).",
    departs="What user mode read or wrote before NXE was cleared, in a page with XD, it reads and"
    " writes after INVLPG without a fault.",
    evidence="Seen at 4K and 2M pages, in every such case and whoever accessed the page first; the"
    " supervisor's accesses to such pages fault. TCG follows the rules.",
)

FAULT_QUIRKS: tuple[FaultQuirk, ...] = (
    RESERVED_WITHOUT_PRESENT,
    GIGABYTE_PAGE_ACCESSED,
    GIGABYTE_PAGE_WITHOUT_CPUID,
    LARGE_PAGE_ADDRESS,
    PML4E_BIT_8_IGNORED,
    PUSH_IS_A_WRITE,
    IMPLICIT_HEEDS_AC,
    PDPTES_ARE_ENTRIES,
    NON_CANONICAL_SETS_CR2,
    USER_ADDRESS_UNCHECKED,
    BOCHS_IMPLICIT_HEEDS_AC,
    BOCHS_BIT_8_IGNORED,
    BOCHS_KEYS_BY_ACCESS,
    BOCHS_KEY_OF_SUPERVISOR_PAGE,
    PVM_KEEPS_A_SLOT,
    PVM_EMULATES_UNDER_SMAP,
)

KNOWN: dict[str, Quirk] = {
    quirk.name: quirk
    for quirk in (
        *FAULT_QUIRKS,
        DEBUG_WALKER,
        TLB_PRINTS_ENTRIES,
        KEPT_CODE,
        ENDS_AT_LAST_BYTE,
        BOCHS_LOSES_ITS_PAGES,
        PVM_KEEPS_XD_PAGE,
    )
}
"""Every departure, by its name."""

KEPT = tuple(quirk.kept for quirk in FAULT_QUIRKS if isinstance(quirk, DenialQuirk))
"""Addresses that some engine keeps for itself."""


def fault_quirks(engine: str, version: Version) -> tuple[FaultQuirk, ...]:
    """The departures in faults to be expected of what `executor` names, in this version."""
    return tuple(quirk for quirk in FAULT_QUIRKS if expected_of(quirk, engine, version))


def known_of(engine: str, version: Version | None) -> tuple[Quirk, ...]:
    """Every departure to be expected of it; in some version, where it is not known which it is."""
    return tuple(
        quirk
        for quirk in KNOWN.values()
        if expected_of(quirk, engine, quirk.since if version is None else version)
    )


def lapses(quirks: Iterable[FaultQuirk]) -> Lapse:
    """The lapses of an engine that has them all."""
    return reduce(or_, (q.lapse for q in quirks if isinstance(q, BasisQuirk)), NO_LAPSE)


def departing(reading: Reading, quirks: Iterable[FaultQuirk]) -> dict[BasisQuirk, Mask]:
    """The quirks by which an engine judges otherwise, and the lanes in which it does; it reads as
    `reading`."""
    lanes = {q: q.lanes(reading) for q in quirks if isinstance(q, BasisQuirk)}
    return {quirk: those for quirk, those in lanes.items() if those.any()}


def read_as(quirk: BasisQuirk, cpu: Cpu) -> Cpu:
    """The CPU as which an engine with this quirk reads entries."""
    basis = quirk.as_if(Basis(cpu, reads(np.empty(0, np.uint64))))
    if basis.pdpte_reserved is None:
        return basis.cpu
    return replace(basis.cpu, pdptes_checked=basis.pdpte_reserved)


def not_run_on(engine: str, version: Version, emulator: Version) -> tuple[str, ...]:
    """Which of those that answer, what `executor` names and the emulator around it, were not yet
    run in these versions: a sentence each."""
    # Only those who ran a machine ask this; who reads tables need not wait for all of that.
    from harness.machine.x86.registry import ENGINES

    asked = {"QEMU": (emulator, QEMU_RUNS)}
    if runs := {run for one in KNOWN.values() if one.engine == engine for run in one.runs}:
        asked[engine] = version, tuple(sorted(runs))
    if engine in ENGINES and not ENGINES[engine].by_kernel:
        del asked["QEMU"]  # the engine is the emulator itself
    return not_yet_run(asked)
