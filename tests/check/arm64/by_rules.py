"""A guest of arm64 whose processor is the rules written a second time, so that what is asked of
guests can be tested without QEMU, and in the versions of QEMU that are not here.

It departs from them as QEMU does where it is told to, by the names in `quirks`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from harness.machine.arm64.processor import RAM_BASE, MachineInfo
from harness.machine.arm64.qemu import BUILD, TCG
from harness.machine.ram import MIB
from harness.paging.memory import BufferMemory
from tests.check import by_rules
from tests.paging import arm64_rules
from tests.paging.arm64_rules import Answer, Machine, Params, bit, field

MAX = MachineInfo((0x32310201126, 0x11010211122, 0x1021011010011011, 0, 0), 0x1221111110212120, 0)
"""The processor `max` of QEMU 7.2."""

EPAN = replace(MAX, mmfr=(MAX.mmfr[0], 0x11010311122, *MAX.mmfr[2:]))
"""The same with FEAT_PAN3, as 10.0 has it."""

HA, HD = 1 << 39, 1 << 40
EL1H = 0x5
PA_BITS: Final = {5: 48, 6: 52}
"""PAMax by ID_AA64MMFR0_EL1.PARange."""

ACCESSES: Final = {
    "ACCESS_READ": "load",
    "ACCESS_WRITE": "store",
    "ACCESS_FETCH": "fetch",
    "ACCESS_SWAP": "atomic",
    "ACCESS_READ_UNPRIVILEGED": "LDTR",
    "ACCESS_WRITE_UNPRIVILEGED": "STTR",
    "TRANSLATE_READ": "load",
    "TRANSLATE_WRITE": "store",
}

LEFT_OVER: Final = 0x5EED_0000_1111_2222
"""What registers hold that no exception has written."""


@dataclass
class Monitor:
    """A monitor: gva2gpa by the rules, of a load, with AF=0 no fault.

    cpsr   the state of the processor that is parked
    again  whether it then asks as EL1 without PAN, but of a half that E0PDx closes
    """

    machine: Machine
    memory: BufferMemory
    cpsr: int
    version: tuple[int, ...]
    again: bool

    def engine_in_use(self) -> str:
        return "tcg"

    def described_registers(self, wanted: Collection[str], vcpu: int | None = None) -> Any:
        return {"cpsr": self.cpsr}

    def translations(self, addresses: Sequence[int]) -> list[int | None]:
        return [self._leads(address) for address in addresses]

    def _leads(self, address: int) -> int | None:
        el0, pan = not self.cpsr >> 2 & 3, bool(self.cpsr >> 22 & 1)
        asked = replace(self.machine, tcr=self.machine.tcr | HA, pan=pan)
        found = self._load(asked, address, el0)
        if found is None and self.again:
            as_el1 = replace(asked, pan=False)
            shut = bit(self.machine.tcr, 56 if bit(address, 55) else 55)
            found = None if shut and el0 else self._load(as_el1, address, el0=False)
        return found

    def _load(self, machine: Machine, address: int, el0: bool) -> int | None:
        octets = self.memory.octets
        found = arm64_rules.access(machine, octets, address, "load", el0)  # type: ignore[arg-type]
        return found.physical if found.esr is None else None

    def read_physical(self, address: int, size: int) -> bytes:
        offset = address - self.memory.span.first
        return self.memory.octets[offset : offset + size].tobytes()


class ByRules(by_rules.ByRules):
    """A guest at its prompt.

    version  of the QEMU that it is taken for
    departs  in what it departs from the rules
    last     what came of the last access
    """

    last: Answer

    engine = TCG

    def __init__(
        self,
        version: tuple[int, ...],
        departs: Collection[str] = (),
        info: MachineInfo = MAX,
        ram_bytes: int = 64 * MIB,
    ) -> None:
        super().__init__(BUILD, RAM_BASE, ram_bytes)
        self.version, self.info, self.departs = version, info, frozenset(departs)

    @contextmanager
    def parked(self, state: Any) -> Iterator[Monitor]:
        machine = Machine(
            *(state.ttbr0, state.ttbr1, state.tcr, state.mair, state.sctlr), ram=RAM_BASE
        )
        memory = BufferMemory(self.ram.buffer, RAM_BASE)
        yield Monitor(machine, memory, EL1H, self.version, self.version >= (10, 1))

    def _execute(self, state: Any, job: np.void, name: str, result: np.void) -> None:
        if name != "ACCESS_NONE":
            machine = Machine(
                *(state.ttbr0, state.ttbr1, state.tcr, state.mair, state.sctlr),
                pan=bool(job["pan"]),
                uao=bool(job["uao"]),
                pan_level=self.info.pan,
                pamax=PA_BITS[self.info.mmfr[0] & 0xF],
                ram=RAM_BASE,
            )
            with departing(self.departs):
                self._make(machine, job, name, result)

    def _make(self, machine: Machine, job: np.void, name: str, result: np.void) -> None:
        kind, el0, address = ACCESSES[name], bool(job["user"]), int(job["address"])
        size, memory = int(job["size"]), self.ram.buffer
        translates = name.startswith("TRANSLATE")
        aligned = translates or kind == "fetch" or address % size == 0
        if (kind == "fetch" and "DBM_FETCH" in self.departs) or (
            translates and kind == "store" and "AT_DBM" in self.departs
        ):
            machine = replace(machine, tcr=machine.tcr & ~HD)
        found = arm64_rules.access(machine, memory, address, kind, el0, aligned)
        if kind == "fetch" and not el0 and "EPAN_WXN" in self.departs and machine.pan:
            without = arm64_rules.access(
                replace(machine, sctlr=machine.sctlr & ~(1 << 19)), memory, address, kind, el0
            )
            epan = bit(machine.sctlr, 57) and machine.pan_level == 3
            found = without if epan and self._el0_executes(machine, address) else found
        if translates:
            return self._translate(found, result)
        if found.esr is None and not 0 <= found.physical - RAM_BASE < len(memory):
            of_write = kind in ("store", "STTR")
            esr = arm64_rules.syndrome(kind, el0, 0b010000, of_write)
            found = Answer(
                esr, arm64_rules.branch_addr(machine, address) if kind == "fetch" else address
            )
        elif found.updated:
            self._store(*found.updated)
        self.last = found
        result["completed"] = found.esr is None
        result["elr"] = LEFT_OVER
        if found.esr is not None:
            result["esr"], result["far"] = found.esr, found.far
            result["elr"] = found.far if kind == "fetch" else LEFT_OVER
        elif kind == "fetch":
            result["data"], result["esr"] = self._code(found.physical), 0x5600_0000
            result["elr"] = arm64_rules.branch_addr(machine, address) + 12
        else:
            self._access(found.physical, kind, size, int(job["value"]), result)

    def _el0_executes(self, machine: Machine, address: int) -> bool:
        """Whether EL0 may execute there, WXN aside."""
        machine = replace(machine, sctlr=machine.sctlr & ~(1 << 19))
        answer = arm64_rules.access(machine, self.ram.buffer, address, "fetch", True)
        return answer.esr is None

    def _translate(self, found: Answer, result: np.void) -> None:
        """PAR_EL1, with bits that no one looks at; or the exception of a walk without memory."""
        status = (found.esr or 0) & 0x3F
        if found.why == "external":
            result["esr"] = 0x25 << 26 | 1 << 25 | status
        elif found.esr is not None:
            result["data"] = 1 << 11 | status << 1 | 1
        else:
            result["data"] = 0xFF << 56 | 1 << 11 | 1 << 9 | found.physical & ~0xFFF

    def _access(self, at: int, kind: str, size: int, value: int, result: np.void) -> None:
        octets = self.ram.buffer[at - RAM_BASE : at - RAM_BASE + size]
        if kind in ("load", "LDTR", "atomic"):
            result["data"] = int.from_bytes(octets.tobytes(), "little")
        if kind in ("store", "STTR", "atomic"):
            octets[:] = np.frombuffer(
                (value & (1 << 8 * size) - 1).to_bytes(size, "little"), np.uint8
            )

    def _code(self, at: int) -> int:
        """x0 after movz x0; movk x0, lsl 16; svc 0."""
        offset = at - RAM_BASE
        low, high, last = self.ram.buffer[offset : offset + 12].view("<u4").tolist()
        assert (low & ~(0xFFFF << 5), high & ~(0xFFFF << 5)) == (0xD280_0000, 0xF2A0_0000)
        assert last == 0xD400_0001
        return field(low, 20, 5) | field(high, 20, 5) << 16


BASE = arm64_rules.base
IGNORED: Final = {"SIZE_64K": ((16,), 0xF000), "SIZE_DS": ((12, 14), 0x300)}
"""The bits of a descriptor that are not read with an output size below 52 bits, with the granules
of which."""


@contextmanager
def departing(names: Collection[str]) -> Iterator[None]:
    """The rules with other functions where QEMU departs in what descriptors say."""

    def base(machine: Machine, p: Params, descriptor: int, lowest: int) -> int:
        for name in IGNORED.keys() & names:
            granules, ignored = IGNORED[name]
            narrow = arm64_rules.oa_size(machine, p) < 52
            if p.granulebits in granules and narrow and (p.ds or p.granulebits == 16):
                descriptor &= ~ignored
        return BASE(machine, p, descriptor, lowest)

    functions: dict[str, Callable[..., object]] = {"base": base}
    if "BLOCK_ANYWHERE" in names:
        functions["block_desc_supported"] = lambda _, p, level: level != 3
    if "DEVICE_ALIGNED" in names:
        functions["is_device"] = lambda machine, descriptor: False
    with by_rules.other(arm64_rules, **functions):
        yield
