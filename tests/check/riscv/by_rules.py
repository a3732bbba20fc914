"""A guest of RISC-V whose hart is the rules written a second time, so that what is asked of guests
can be tested without QEMU, and in the versions of QEMU that are not here.

It departs from them as QEMU does where it is told to, by the names in `DEPARTS`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from harness.machine.ram import MIB
from harness.machine.riscv.processor import MODES, RAM_BASE, MachineInfo
from harness.machine.riscv.qemu import BUILDS, TCG
from tests.check import by_rules
from tests.paging import riscv_rules
from tests.paging.riscv_rules import Answer, Machine, bit, field

Version = tuple[int, ...]

SEVEN, TEN, ELEVEN = (7, 2, 22), (10, 0, 13), (11, 1, 3)

AMO_LOADS = "an AMO is a load and then a store"
AS_LOADS = "a fault of the load of an AMO is a load's"
NO_TABLE = "a table without memory is a page fault"
HIGH_BITS = "bits 60:54 are ignored where Svnapot or Svpbmt is there"
PBMT3 = "PBMT=3 is accepted in leaves"
PBMTE = "PBMTE plays no part where Svpbmt is there"
ANY_N = "N of leaves is ignored where Svpbmt is there, and Svnapot is not"
NAPOT_LATE = "A and D are set before the encoding of a NAPOT page is looked at"
LOW_PAGES = "pages of Sv32 have addresses of 32 bits"
MASKS_MXR = "pointers are masked with MXR, unless MPRV is set too"
CODE = "by MPRV, what M-mode executes from is not translated"

DEPARTS: Final[Mapping[Version, frozenset[str]]] = {
    SEVEN: frozenset(
        (AMO_LOADS, AS_LOADS, NO_TABLE, HIGH_BITS, PBMT3, PBMTE, ANY_N, NAPOT_LATE, LOW_PAGES, CODE)
    ),
    TEN: frozenset((AMO_LOADS, NAPOT_LATE, MASKS_MXR)),
    ELEVEN: frozenset((AMO_LOADS,)),
}
"""What each version of QEMU departs in, as was seen of it."""

PMM, PBMTE_BIT, N = 3 << 32, 1 << 62, 1 << 63
RESERVED, PAGE_NUMBER = riscv_rules.is_reserved, riscv_rules.page_number
_SEVEN, _LATER = 0xC000_0000_0000_00F1, 0xF800_0000_0000_00FD
"""What can be set of menvcfg: FIOM in bit 0, CBIE, CBCFE and CBZE in 7:4, PBMTE and STCE in 63:62;
later LPE and SSE in 3:2, and DTE, CDE and ADUE in 61:59 too ("Machine Environment Configuration
(menvcfg) Register")."""


def info(xlen: int, version: Version, *without: str) -> MachineInfo:
    """The processor with the most extensions that a QEMU has, but for some."""
    later, wide = version >= TEN, xlen == 64
    extensions = ["svnapot", "svpbmt"] if wide else []
    extensions += ["svadu"] if later else []
    extensions += ["svrsw60t59b"] if wide and version >= ELEVEN else []
    masks = PMM if later and wide else 0
    there = [one for one in extensions if one not in without]
    menvcfg = (_LATER if later else _SEVEN) | masks
    if later and "svpbmt" in without:
        menvcfg &= ~PBMTE_BIT
    modes = {name for name in MODES if (name == "sv32") is not wide}
    isa = "_".join([f"rv{xlen}imac", *there])
    return MachineInfo(xlen, frozenset(modes), 16 if wide else 9, menvcfg, 0xF1 | masks, isa)


class ByRules(by_rules.ByRules):
    """A guest at its prompt.

    version  of the QEMU that it is taken for
    departs  in what it departs from the rules
    without  the extensions that its processor lacks
    last     what came of the last access
    """

    last = Answer(None)

    def __init__(
        self,
        version: Version,
        departs: Collection[str] = (),
        xlen: int = 64,
        ram_bytes: int = 64 * MIB,
        without: tuple[str, ...] = (),
    ) -> None:
        super().__init__(BUILDS[xlen], RAM_BASE, ram_bytes, xlen // 8)
        self.version, self.departs, self.xlen, self.without = version, departs, xlen, without
        self.engine, self.info = TCG[xlen], info(xlen, version, *without)

    @contextmanager
    def parked(self, state: Any) -> Iterator[Any]:
        def read_physical(address: int, size: int) -> bytes:
            return bytes(self.ram.buffer[address - RAM_BASE :][:size])

        yield SimpleNamespace(read_physical=read_physical, version=self.version)

    # ---- an access ----

    def hart(self, state: Any, sum: bool, mxr: bool) -> Machine:
        """The hart in a state."""
        assert state.xlen == self.xlen
        return Machine(
            self.xlen,
            state.satp,
            sum << 18 | mxr << 19,
            state.menvcfg,
            state.senvcfg,
            svnapot=self.info.has("svnapot"),
            svrsw60t59b=self.info.has("svrsw60t59b"),
            svade=self.info.has("svadu"),
            ram=RAM_BASE,
        )

    def _execute(self, state: Any, job: np.void, name: str, result: np.void) -> None:
        result["cause"] = self.image.enums["CAUSE_NONE"]
        if name != "ACCESS_NONE":
            hart = self.hart(state, bool(job["sum"]), bool(job["mxr"]))
            self._make(hart, job, name.removeprefix("ACCESS_"), result)

    def _make(self, hart: Machine, job: np.void, name: str, result: np.void) -> None:
        address, user, mprv = int(job["address"]), bool(job["user"]), bool(job["mprv"])
        size, stored = int(job["size"]), int(job["value"])
        assert size == self.xlen // 8 and (name == "FETCH" or not address % size)
        assert not (mprv and name == "FETCH")
        if name == "FETCH":
            found = self._translated(hart, address, "fetch", user, mprv)
        elif name == "AMO" and AMO_LOADS in self.departs:
            found = self._translated(hart, address, "load", user, mprv)
            if found.cause is None:
                found = self._translated(hart, address, "AMO", user, mprv)
            elif AS_LOADS not in self.departs:
                found = replace(found, cause={13: 15, 5: 7}[found.cause])
        else:
            kind = {"LOAD": "load", "LR": "load", "STORE": "store", "AMO": "AMO"}[name]
            found = self._translated(hart, address, kind, user, mprv)
        self.last = found
        if found.cause is not None:
            result["cause"], result["tval"], result["epc"] = found.cause, found.tval, 0xE9C
            if name == "FETCH":
                result["epc"] = address
            return
        result["completed"] = 1
        if name == "FETCH":
            result["cause"], result["epc"] = 8 if user else 9, address + 8
            result["data"] = self._code(found.physical)
            return
        octets = self.ram.buffer[found.physical - RAM_BASE :][:size]
        if name != "STORE":
            result["data"] = int.from_bytes(octets.tobytes(), "little")
        if name in ("STORE", "AMO"):
            octets[:] = np.frombuffer(stored.to_bytes(8, "little"), np.uint8)[:size]

    def _translated(self, hart: Machine, address: int, kind: str, user: bool, mprv: bool) -> Answer:
        """What an access comes to, the memory that it reaches among it."""
        if CODE in self.departs and mprv:
            here = range(self.image.text.start, self.image.user.stop)
            assert address not in here, "the stub would be changed"
        found = self.of_qemu(hart, address, kind, user, mprv, self.departs)
        if found.updated:
            self._store(*found.updated)
        if found.cause is None and not 0 <= found.physical - RAM_BASE < self.ram.size:
            found = replace(found, cause=riscv_rules.access_fault(kind))
        return found

    def of_qemu(
        self,
        hart: Machine,
        pointer: int,
        kind: str,
        user: bool,
        mprv: bool,
        departs: Collection[str],
    ) -> Answer:
        """`riscv_rules.access`, but for what a QEMU departs in; tval is the address throughout."""
        late = set[int]()
        svpbmt, svnapot = self.info.has("svpbmt"), hart.svnapot
        no_n = ANY_N in departs and svpbmt and not svnapot

        def is_reserved(machine: Machine, pte: int, i: int) -> bool:
            leaf = field(pte, 3, 1) != 0
            seen = pte & ~(0x7F << 54 if HIGH_BITS in departs and (svnapot or svpbmt) else 0)
            if leaf and PBMTE in departs and svpbmt:
                machine = replace(machine, menvcfg=machine.menvcfg | 1 << 62)
            if leaf and PBMT3 in departs and field(pte, 62, 61) == 3:
                seen &= ~(1 << 62)
            if leaf and no_n:
                seen &= ~N
            if leaf and NAPOT_LATE in departs and svnapot and RESERVED(machine, seen, i):
                late.add(pte)
                seen &= ~N
            return RESERVED(machine, seen, i)

        def page_number(machine: Machine, pte: int, va: int) -> int:
            return PAGE_NUMBER(machine, pte & ~N if no_n or pte in late else pte, va)

        unmasked = replace(hart, mstatus=hart.mstatus if mprv or MASKS_MXR not in departs else 0)
        address = riscv_rules.without_tag(unmasked, pointer, kind, user)
        octets: Any = self.ram.buffer
        with by_rules.other(
            riscv_rules,
            is_reserved=is_reserved,
            page_number=page_number,
            without_tag=lambda *asked: address,
        ):
            found = riscv_rules.access(hart, octets, pointer, kind, user)
        if (found.cause is None and late) or (found.step == 2 and NO_TABLE in departs):
            found = replace(found, cause=riscv_rules.page_fault(kind))
        if LOW_PAGES in departs and hart.xlen == 32:
            found = replace(found, physical=found.physical & 0xFFFF_FFFF)
        return replace(found, tval=address)

    def _code(self, at: int) -> int:
        """a0 after lui a0; addi a0, a0, or addiw; ecall."""
        lui, addi, ecall = self.ram.buffer[at - RAM_BASE :][:12].view("<u4").tolist()
        assert (lui & 0xFFF, addi & 0xF_FFF7, ecall) == (0x537, 0x5_0513, 0x73)
        value = lui - (lui & 0xFFF) - (bit(lui, 31) << 32)
        value += field(addi, 31, 20) - (bit(addi, 31) << 12)
        if bit(addi, 3):
            value = field(value, 31, 0) - (bit(value, 31) << 32)
        return int(value & (1 << self.xlen) - 1)
