"""The guest whose stub is RISC-V's: the states it can take, and the accesses it can make."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.machine.errors import Misuse, ProtocolError
from harness.machine.guest import StubGuest, refuse
from harness.machine.ram import MIB, Ram, around
from harness.machine.riscv.processor import MODES, RAM_BASE, MachineInfo, State, check_state, isa_in
from harness.machine.riscv.qemu import BUILDS, TCG
from harness.machine.stub import StubImage

__all__ = ["Guest", "MachineInfo", "State"]

SIZES: Final = {"LOAD": (1, 4, 8), "STORE": (1, 4, 8), "AMO": (4, 8), "LR": (4, 8)}
"""The bytes that each access of the stub can have."""


class Guest(StubGuest[State, MachineInfo]):
    """A guest with the stub at its prompt, in machine mode.

    xlen       32 or 64: the processor's bits, and which QEMU it is
    ram_bytes  the size of the RAM, which begins at `RAM_BASE`
    cpu        the processor as QEMU names it, such as rv64,svnapot=on; the one with the most
               extensions by default
    program    another QEMU than the usual one
    image      the stub where it is to be, if not at the beginning of RAM
    deadline   the seconds that any answer may take

    Raises as `StubGuest` does, and `Misuse` for more memory than the machine can have.
    """

    def __init__(
        self,
        xlen: int = 64,
        *,
        ram_bytes: int = 64 * MIB,
        cpu: str | None = None,
        program: str | None = None,
        image: StubImage | None = None,
        deadline: float = 30.0,
    ) -> None:
        engine, image = TCG[xlen], image or StubImage.load(BUILDS[xlen])
        if ram_bytes > engine.largest_ram:
            raise Misuse(
                f"{ram_bytes} bytes of RAM: a guest of {xlen} bits has at most {engine.largest_ram}"
            )
        ram = partial(_ram, ram_bytes, image.base)
        super().__init__(engine, ram, image, cpu=cpu, program=program, deadline=deadline)

    @property
    def free(self) -> tuple[range, ...]:
        return around(self.image.arena, range(self.ram.base, self.ram.base + self.ram.size))

    def _info_in(self, record: np.void) -> MachineInfo:
        tree = self.ram.buffer[int(record["device_tree"]) - self.ram.base :]
        try:
            isa = isa_in(tree)
        except ValueError as error:
            self.close()
            raise ProtocolError(f"the machine does not say what it is: {error}", "") from None
        for part in self.free:  # the caller's memory is zero at first
            self.ram.clear(part)
        modes = int(record["modes"])
        return MachineInfo(
            xlen=int(record["xlen"]),
            modes=frozenset(name for name, mode in MODES.items() if modes >> mode & 1)
            & (_MODES_OF[int(record["xlen"])]),
            asid_bits=int(record["asid_bits"]),
            menvcfg=int(record["menvcfg"]),
            senvcfg=int(record["senvcfg"]),
            isa=isa,
        )

    def _values(self, state: State) -> dict[str, Any]:
        return {
            "satp": state.satp,
            "menvcfg": state.menvcfg,
            "senvcfg": state.senvcfg,
            "window": state.window,
        }

    def _check_state(self, state: State) -> None:
        check_state(state, self.info, range(self.ram.base, self.ram.base + self.ram.size))

    def _check_accesses(self, jobs: npt.NDArray[np.void], state: State) -> None:
        enums = self.image.enums
        refuse(jobs, jobs["access"] > enums["ACCESS_LR"], "no such access")
        refuse(jobs, jobs["flush"] > enums["FLUSH_ASID"], "no such flush")
        for name, sizes in SIZES.items():
            known = [size for size in sizes if size <= state.word_bytes]
            odd = (jobs["access"] == enums[f"ACCESS_{name}"]) & ~np.isin(jobs["size"], known)
            refuse(jobs, odd, f"this access has {known} bytes")
        fetches = jobs["access"] == enums["ACCESS_FETCH"]
        refuse(jobs, fetches & (jobs["mprv"] != 0), "MPRV is not for fetches")
        refuse(jobs, fetches & (jobs["address"] & np.uint64(1) != 0), "code has no odd address")
        if state.xlen == 32:
            above = jobs["address"] >> np.uint64(32) != 0
            refuse(jobs, above, "Sv32 has no address above 4 GiB")


def _ram(size: int, stub: int) -> Ram:
    """RAM for a stub that lies at an address: at its beginning, where the machine starts, there is
    a jump to it, which leaves a0 and a1 alone, if the stub itself is elsewhere."""
    ram = Ram(size, base=RAM_BASE)
    if by := stub - RAM_BASE:
        words = np.array([_AUIPC_T0 | by, _JR_T0], "<u4").view(np.uint8)  # `by` has no low bits
        ram.buffer[: len(words)] = words
    return ram


_AUIPC_T0: Final = 0x0000_0297
_JR_T0: Final = 0x0002_8067

_MODES_OF: Final = {32: {"sv32"}, 64: set(MODES) - {"sv32"}}
