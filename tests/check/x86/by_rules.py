"""A guest of x86 whose processor is the rules written a second time, so that what is asked of
guests can be tested without an engine, and in versions that are not here.

It departs from them as an engine does where it is told to, by the names in `DEPARTS`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.machine import machine
from harness.machine.machine import Processor
from harness.machine.ram import MIB, beside
from harness.machine.x86.processor import FEATURES, MachineInfo
from harness.machine.x86.registry import engine_named
from harness.machine.x86.stub import BUILD
from tests.check import by_rules
from tests.paging import rules
from tests.paging.rules import GP, PF, SS, Answer, Machine, Translation, bit, field

Version = tuple[int, ...]

LACKS_P = "the error code for a reserved bit lacks P"
GIGABYTE_A = "A is set in an entry of a 1G page that faults"
GIGABYTE = "1G pages need no CPUID bit"
PAGE_4M = "bits 20:13 of a 4M page's entry are address bits whatever CPUID shows"
BIT_8 = "bit 8 of AMD's PML4E is ignored"
PUSH = "a push has no exception of its own"
IMPLICIT = "the supervisor's implicit accesses heed AC"
PDPTES = "PDPTEs are read at every access, and marked"
CR2 = "a fault by no canonical address writes CR2"
UNCHECKED = "the user's addresses need not be canonical"
AC = "every implicit access heeds AC"
KEYS = "the supervisor's accesses go by PKRS, and its writes by PKRU too"
KEY_OF_SUPERVISOR = "PKRU is asked about the user's accesses to supervisor pages"
SLOT = "the user's accesses to a slot are faults of the engine's own"
SMAP_CODE = "the last instruction of a user's code is read for the supervisor as data"
UPPER = "A is set above the entry at which a fault is found"
"""The last is no departure: SDM volume 3A, 4.8, leaves it to the processor."""

OF_QEMU: Final = frozenset(
    (LACKS_P, GIGABYTE_A, GIGABYTE, PAGE_4M, BIT_8, PUSH, IMPLICIT, PDPTES, UPPER)
)
Engine = tuple[str, Version]

TCG: Final[Engine] = "tcg", (7, 2, 22)
OLD_TCG: Final[Engine] = "tcg", (8, 2, 2)
BOCHS: Final[Engine] = "bochs", (3, 0)
PVM: Final[Engine] = "kvm_pvm", (6, 18, 44)
"""Who executes, and in which version."""

DEPARTS: Final[dict[Engine, frozenset[str]]] = {
    TCG: OF_QEMU,
    OLD_TCG: OF_QEMU | {CR2, UNCHECKED},
    BOCHS: frozenset((AC, BIT_8, KEYS, KEY_OF_SUPERVISOR)),
    PVM: frozenset((SLOT, SMAP_CODE)),
}
"""What versions of engines depart in, as was seen of them."""

PVM_SLOT: Final = 0x1FF_FF00
"""Bits 63:39 of the addresses that PVM keeps for itself, the first 512 GByte of the upper half."""

NO_WRITE: Final = 0xAAAA_AAAA
"""The bit of each key that denies writes."""

KINDS: Final = {
    "READ": "read",
    "WRITE": "write",
    "FETCH": "fetch",
    "PUSH": "push",
    "DESCRIPTOR": "read",
    "SHADOW_READ": "shadow read",
    "SHADOW_WRITE": "shadow write",
    "USER_SHADOW_WRITE": "shadow write",
    "RETURN": "shadow read",
    "CALL": "shadow write",
}
"""What the stub's accesses are by the rules."""


def info_of(processor: Processor, *lacking: str) -> MachineInfo:
    """What CPUID shows of a processor: every feature but some."""
    there = {
        "gigabyte_pages": processor.page1gb,
        "pse36": processor.pse36,
        "cet_ss": processor.shadow_stacks,
        "lass": processor.lass,
    }
    vendor = b"AuthenticAMD" if processor.amd else b"GenuineIntel"
    b, d, c = (int.from_bytes(vendor[n : n + 4], "little") for n in (0, 4, 8))
    leaves = {0: [0, b, c, d], 0x8000_0000: [0] * 4, 0x8000_0008: [processor.maxphyaddr, 0, 0, 0]}
    for name, (leaf, register, number) in FEATURES.items():
        has = there.get(name, True) and name not in lacking
        leaves.setdefault(leaf, [0] * 4)["abcd".index(register)] |= has << number
    return MachineInfo({leaf: (a, b, c, d) for leaf, (a, b, c, d) in leaves.items()})


def executing(name: str) -> machine.Engine:
    """The engine of a guest for which `executor` names who executes, whatever this host has."""
    if name != PVM[0]:
        return engine_named(name)
    return replace(engine_named("kvm"), name=name, by_kernel=False)


class ByRules(by_rules.ByRules):
    """A guest at its prompt.

    engine, version  that it is taken for
    departs          in what it departs from the rules
    last             what came of the last access
    walked           how the last walk ended
    """

    last, walked = Answer(None), Translation("not canonical", None)
    has_monitor = False

    def __init__(
        self,
        engine: str = "bochs",
        version: Version = (3, 0),
        departs: Collection[str] = (),
        info: MachineInfo | None = None,
        ram_bytes: int = 64 * MIB,
    ) -> None:
        super().__init__(BUILD, 0, ram_bytes)
        self.engine, self.version, self.departs = executing(engine), version, departs
        self.info = info or info_of(Processor())
        self._machines = dict[tuple[Any, bool], Machine]()
        self._flushes = {
            number: name.removeprefix("FLUSH_")
            for name, number in self.image.enums.items()
            if name.startswith("FLUSH_")
        }

    @property
    def free(self) -> tuple[range, ...]:
        return beside(self.image.arena, self.ram.size)

    def machine(self, state: Any, ac: bool = False) -> Machine:
        """The processor in a state."""
        if (state, ac) not in self._machines:
            self._machines[state, ac] = self._machine(state, ac)
        return self._machines[state, ac]

    def _machine(self, state: Any, ac: bool) -> Machine:
        """The same, bit by bit (SDM volume 3A, 2.2.1 and 2.5)."""
        cr4, long = state.cr4, bit(state.efer, 8)
        found = Machine(
            4 + bit(cr4, 12) if long else 2 + bit(cr4, 5),
            self.info.physical_bits,
            nxe=bit(state.efer, 11),
            page1gb=self.info.has("gigabyte_pages"),
            wp=bit(state.cr0, 16),
            smep=bit(cr4, 20),
            smap=bit(cr4, 21),
            lass=bit(cr4, 27),
            ac=ac,
            pse=bit(cr4, 4),
            pse36=self.info.has("pse36"),
            amd=self.info.vendor == "AuthenticAMD",
            pke=bit(cr4, 22),
            pks=bit(cr4, 24),
            pkru=state.pkru,
            pkrs=state.pkrs,
            pcide=bit(cr4, 17),
            cr3=state.cr3,
        )
        return replace(found, **self._read_as(found))

    def _read_as(self, machine: Machine) -> dict[str, Any]:
        """What entries are read by in place of what CPUID shows."""
        other: dict[str, Any] = {}
        if GIGABYTE in self.departs:
            other["page1gb"] = True
        if BIT_8 in self.departs:
            other["amd"] = False
        if PAGE_4M in self.departs and machine.levels == 2:
            other |= {"pse36": True, "maxphyaddr": 40}
        return other

    # ---- jobs ----

    def _executed(self, state: Any, jobs: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        self._words = self.ram.buffer.view(f"<u{state.word_bytes}")
        self._control = state
        assert self._load(state, state.cr3)
        patched = np.arange(jobs["where"].shape[1]) < jobs["patched"][:, np.newaxis]
        assert not (jobs["where"][patched] < self.image.table_arena.start).any(), "the stub's own"
        return super()._executed(state, jobs)

    def _load(self, state: Any, cr3: int) -> bool:
        """Whether MOV CR3 is no #GP(0); it loads the PDPTEs."""
        machine, memory = self.machine(state), self.ram.buffer
        if machine.levels == 3 and PDPTES in self.departs:
            return True
        loaded = rules.load_cr3(machine, memory, cr3)
        if loaded is not None:
            self._pdptes = loaded.pdptes
        return loaded is not None

    def _execute(self, state: Any, job: np.void, name: str, result: np.void) -> None:
        enums, control = self.image.enums, int(job["control"])
        if control:
            self._control = state if control == enums["CONTROL_FIRST"] else state.then
        result["vector"], result["cr2"] = enums["VECTOR_NONE"], enums["CR2_UNTOUCHED"]
        if not self._flushed(self._control, job):
            self.last = Answer(GP)
            result["vector"], result["rip"] = GP, self._stub_at(state)
        elif name == "ACCESS_NONE":
            result["completed"] = 1
        else:
            self._make(self._control, job, name.removeprefix("ACCESS_"), result)

    def _stub_at(self, state: Any) -> int:
        """An instruction of the stub's."""
        return int(state.window + self.image.text.start + 0x40)

    def _flushed(self, state: Any, job: np.void) -> bool:
        """Whether what comes before an access is no #GP(0).  No translation is kept, so there is
        none to drop."""
        way, changed = self._flushes[int(job["flush"])], int(job["value"])
        if way in ("ALL", "GLOBAL"):
            return self._load(state, state.cr3)
        if way == "CR3":
            return self._load(state, state.cr3 ^ changed)
        if way == "CR0":
            return not refused_cr0(state, state.cr0 ^ changed)
        return way != "CR4" or not refused_cr4(state, state.cr4 ^ changed)

    def _make(self, state: Any, job: np.void, name: str, result: np.void) -> None:
        kind, by_user, address = KINDS[name], bool(job["user"]), int(job["address"])
        implicit, stack = name == "DESCRIPTOR", state.stack_bytes
        user = name == "USER_SHADOW_WRITE" or (by_user and not implicit)
        machine = self.machine(state, bool(job["ac"]))
        if AC in self.departs or (IMPLICIT in self.departs and not by_user):
            implicit = False
        found = self.last = self._comes_to(machine, address, kind, user, implicit)
        if found.vector is not None:
            result["vector"], result["error"] = found.vector, found.error
            if found.cr2 is not None:
                result["cr2"] = found.cr2
            at_the_address = kind == "fetch" and found.vector == PF
            result["rip"] = address if at_the_address else self._stub_at(state)
            return
        assert found.physical is not None
        result["completed"] = 1
        if kind == "fetch":
            self._fetch(machine, address, found.physical, result)
            if SMAP_CODE in self.departs and not user and machine.smap and not machine.ac:
                self._code_as_data(machine, result)
        elif name == "READ":
            result["data"] = self._bytes(found.physical, int(job["size"]))
        elif name == "DESCRIPTOR":
            self._describe(state, found.physical, result)
        elif kind in rules.WRITES:
            value, size = int(job["value"]), int(job["size"]) if name == "WRITE" else stack
            if name == "CALL":
                value = self._stub_at(state)
                result["data"] = value
            octets = self.ram.buffer[found.physical :][:size]
            stored = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
            octets[:] = np.frombuffer(stored, np.uint8)[: len(octets)]

    def _bytes(self, at: int, size: int) -> int:
        """What a read finds: nothing where there is no memory."""
        return int.from_bytes(self.ram.buffer[at : at + size].tobytes(), "little")

    def _fetch(self, machine: Machine, address: int, at: int, result: np.void) -> None:
        """RAX, or EAX, after `mov` to it and `ud2`; where a page ends, `push %es` or `int3`."""
        long = machine.levels >= 4
        code, size = self.ram.buffer[at : at + 12].tobytes(), 8 if long else 4
        begins = b"\x48\xb8" if long else b"\xb8"
        end, vector = 0, 6
        if code.startswith(begins) and code[len(begins) + size :].startswith(b"\x0f\x0b"):
            result["data"] = int.from_bytes(code[len(begins) :][:size], "little")
            end = len(begins) + size
        elif code.startswith(b"\xcc"):
            end, vector = 1, 3
        result["vector"] = vector
        result["rip"] = address + end & (1 << 64 if long else 1 << 32) - 1

    def _code_as_data(self, machine: Machine, result: np.void) -> None:
        """A page fault at the instruction that ends code, where the page is the user's."""
        if rules.is_user_page(self.walked) and result["rip"] != (1 << 64) - 1:
            result["vector"], result["cr2"] = PF, result["rip"]
            result["error"] = 1 | machine.nxe << 4

    def _describe(self, state: Any, at: int, result: np.void) -> None:
        """The base of a data segment (SDM volume 3A, 3.4.5); any other is refused by its number,
        which is 4."""
        word = self._bytes(at, 8)
        if field(word, 47, 40) >> 40 == 0xF3:
            result["data"] = field(word, 39, 16) >> 16 | field(word, 63, 56) >> 32
        else:
            result["vector"], result["error"], result["rip"] = GP, 4, self._stub_at(state)

    # ---- an access ----

    def _comes_to(
        self, machine: Machine, address: int, kind: str, user: bool, implicit: bool
    ) -> Answer:
        """What an access comes to, with A and D set."""
        if SLOT in self.departs and user and address >> 39 == PVM_SLOT:
            return self._of_the_host(address, kind)
        walked = address
        if UNCHECKED in self.departs and user and machine.levels >= 4:
            walked = sign_extended(address, 48 if machine.levels == 4 else 57)
        found = self._pdpte_read(machine, address, kind, user)
        if isinstance(found, Machine):
            machine = found
            answer = self._by_entries(machine, walked, kind, user, implicit)
            if answer.vector is None:
                self._mark(answer.accessed, 1 << 5)
                self._mark(() if answer.dirty is None else (answer.dirty,), 1 << 6)
            elif answer.vector == PF:
                self._mark_at_fault(machine)
            found = answer
        if found.cr2 is not None:
            found = replace(found, cr2=address)
        elif found.vector in (GP, SS):
            found = replace(found, vector=GP if PUSH in self.departs else found.vector)
            if CR2 in self.departs and not rules.is_canonical(machine, address):
                found = replace(found, cr2=address)
        if found.error & 1 << 3 and LACKS_P in self.departs:
            found = replace(found, error=found.error & ~1)
        return found

    def _of_the_host(self, address: int, kind: str) -> Answer:
        """What comes of an access to what a host has for itself, of each of its processors 24 KByte
        at the start of 2 MByte: one of them is this guest's."""
        error = 4 | (kind in rules.WRITES) << 1 | (kind == "fetch") << 4
        theirs = address % (2 << 20) < 24 << 10 and address >> 21 & 1
        return Answer(PF, error | (9 if theirs else 0), address)

    def _pdpte_read(
        self, machine: Machine, address: int, kind: str, user: bool
    ) -> Machine | Answer:
        """The machine with the PDPTEs that count, or what comes of one."""
        if machine.levels != 3:
            return machine
        if PDPTES not in self.departs:
            return replace(machine, pdptes=self._pdptes)
        own = address >> 30
        at = field(machine.cr3, 31, 5) + 8 * own
        pdpte = self._bytes(at, 8)
        if not bit(pdpte, 0):
            error = rules.error_code(machine, kind, user, False, False, False)
            return Answer(PF, error, address)
        if field(pdpte, 63, machine.maxphyaddr):
            error = rules.error_code(machine, kind, user, True, True, False)
            return Answer(PF, error, address)
        self._mark((at,), 1 << 5)
        pdptes = [0, 0, 0, 0]
        pdptes[own] = pdpte
        return replace(machine, pdptes=(pdptes[0], pdptes[1], pdptes[2], pdptes[3]))

    def _by_entries(
        self, machine: Machine, address: int, kind: str, user: bool, implicit: bool
    ) -> Answer:
        memory: Any = self.ram.buffer
        self.walked = rules.walk(machine, memory, address)
        found = rules.access(machine, memory, address, kind, user, implicit)
        assert found is not None, "there is memory behind every table that is asked about"
        asked_of_pkru = KEY_OF_SUPERVISOR if user else KEYS
        if asked_of_pkru in self.departs and machine.levels >= 4 and kind != "fetch":
            found = self._by_bochs(machine, address, kind, user, implicit, found)
        return found

    def _by_bochs(
        self, machine: Machine, address: int, kind: str, user: bool, implicit: bool, found: Answer
    ) -> Answer:
        """What comes of an access whose key goes by who makes it, whose ever the page is."""
        walked = self.walked
        if walked.end != "page" or found.vector in (GP, SS):
            return found
        key = walked.used[-1][1] >> 59 & 0xF
        pkru, pkrs = machine.pkru * machine.pke, machine.pkrs * machine.pks
        rights = pkru if user else pkrs | pkru & NO_WRITE
        writes = kind in rules.WRITES and (user or machine.wp)
        denied = bit(rights, 2 * key) or (bit(rights, 2 * key + 1) and writes)
        allowed = rules.rights_allow(machine, walked, kind, user, implicit)
        if denied or not allowed:
            error = rules.error_code(machine, kind, user, True, False, denied)
            return Answer(PF, error, address)
        accessed = tuple(at for at, _ in walked.used)
        dirty = accessed[-1] if kind in rules.WRITES else None
        return Answer(None, physical=walked.physical, accessed=accessed, dirty=dirty)

    def _mark_at_fault(self, machine: Machine) -> None:
        """A of entries by which a fault was found."""
        walked = self.walked
        if UPPER in self.departs:
            self._mark([at for at, _ in walked.used[:-1]], 1 << 5)
        if GIGABYTE_A in self.departs and machine.levels >= 4 and walked.level == 2:
            at, entry = walked.used[-1]
            wrong = rules.reserved_in_long(machine, 0, entry)
            if bit(entry, 0) and bit(entry, 7) and not wrong:
                self._mark((at,), 1 << 5)

    def _mark(self, places: Collection[int], marks: int) -> None:
        for at in places:
            self.ram.buffer[at] |= marks


def sign_extended(address: int, width: int) -> int:
    """An address with the bits from `width` on taken from the one below."""
    low = field(address, width - 1, 0)
    return low | field(-1, 63, width) if bit(low, width - 1) else low


def refused_cr0(state: Any, value: int) -> bool:
    """Whether MOV CR0 is #GP(0) (SDM volume 2B, MOV to control registers; volume 3A, 2.5)."""
    pe, wp, nw, cd, pg = (bit(value, number) for number in (0, 16, 29, 30, 31))
    left = (pg and not pe) or (bit(state.efer, 8) and not pg)
    return field(value, 63, 32) != 0 or left or (nw and not cd) or (bit(state.cr4, 23) and not wp)


def refused_cr4(state: Any, value: int) -> bool:
    """Whether MOV CR4 is: bits 63:33, 31:28, 26 and 15 are those of no feature here."""
    long, changed = bit(state.efer, 8), value ^ state.cr4
    odd = field(value, 63, 33) | field(value, 31, 28) | field(value, 26, 26) | field(value, 15, 15)
    formats = long and (not bit(value, 5) or bit(changed, 12))
    pcide = bit(value & changed, 17) and (not long or field(state.cr3, 11, 0) != 0)
    return odd != 0 or formats or pcide or (bit(value, 23) and not bit(state.cr0, 16))
