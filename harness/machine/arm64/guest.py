"""The guest whose stub is arm64's: the states it can take, and the accesses it can make."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.machine.arm64.processor import RAM_BASE, MachineInfo, State, check_state
from harness.machine.arm64.qemu import BUILD, TCG
from harness.machine.guest import StubGuest, refuse
from harness.machine.monitor import Monitor
from harness.machine.ram import MIB, Ram, around
from harness.machine.stub import StubImage

__all__ = ["Guest", "MachineInfo", "State"]

SIZES: Final = {
    **dict.fromkeys(("READ", "WRITE", "READ_UNPRIVILEGED", "WRITE_UNPRIVILEGED"), (1, 4, 8)),
    **dict.fromkeys(("SWAP", "EXCLUSIVE"), (4, 8)),
}
"""The bytes that each access of the stub can have."""


class Guest(StubGuest[State, MachineInfo]):
    """A guest with the stub at its prompt, at EL2.

    ram_bytes  the size of the RAM, which begins at `RAM_BASE`
    cpu        the processor as QEMU names it, such as cortex-a72; `max` by default
    program    another QEMU than the usual one
    image      the stub where it is to be, if not at the beginning of RAM
    deadline   the seconds that any answer may take

    Raises as `StubGuest` does.
    """

    def __init__(
        self,
        *,
        ram_bytes: int = 64 * MIB,
        cpu: str | None = None,
        program: str | None = None,
        image: StubImage | None = None,
        deadline: float = 30.0,
    ) -> None:
        image = image or StubImage.load(BUILD)
        ram = partial(Ram, ram_bytes, base=RAM_BASE)
        super().__init__(TCG, ram, image, cpu=cpu, program=program, deadline=deadline)

    @property
    def free(self) -> tuple[range, ...]:
        return around(self.image.arena, range(self.ram.base, self.ram.base + self.ram.size))

    def _info_in(self, record: np.void) -> MachineInfo:
        for part in self.free:  # the caller's memory is zero at first, and has no device tree
            self.ram.clear(part)
        return MachineInfo(
            mmfr=tuple(int(one) for one in record["mmfr"]),
            isar0=int(record["isar0"]),
            sctlr=int(record["sctlr"]),
        )

    def _values(self, state: State) -> dict[str, Any]:
        return {
            "ttbr0": state.ttbr0,
            "ttbr1": state.ttbr1,
            "tcr": state.tcr,
            "mair": state.mair,
            "sctlr": state.sctlr,
            "window": self.image.enums["NO_WINDOW"] if state.window is None else state.window,
        }

    def _check_state(self, state: State) -> None:
        check_state(state, self.info, range(self.ram.base, self.ram.base + self.ram.size))

    def _checked_for(self, state: State) -> object:
        return state.window is not None

    def _check_accesses(self, jobs: npt.NDArray[np.void], state: State) -> None:
        enums, access = self.image.enums, jobs["access"]
        refuse(jobs, access > enums["TRANSLATE_WRITE"], "no such access")
        refuse(jobs, jobs["flush"] > enums["FLUSH_LEAF_ASID"], "no such flush")
        for name, sizes in SIZES.items():
            odd = (access == enums[f"ACCESS_{name}"]) & ~np.isin(jobs["size"], sizes)
            refuse(jobs, odd, f"this access has {sizes} bytes")
        fetches = access == enums["ACCESS_FETCH"]
        refuse(jobs, fetches & (jobs["address"] & np.uint64(3) != 0), "code is a multiple of 4")
        translated = access >= enums["TRANSLATE_READ"]
        if state.window is None:
            made = (access != enums["ACCESS_NONE"]) & ~translated
            refuse(jobs, made, "an access is made from the window, and the state has none")
        pan = jobs["pan"] != 0
        refuse(jobs, translated & pan & (jobs["user"] != 0), "AT has no PAN for EL0")
        if self.info.pan < 2:
            refuse(jobs, translated & pan, "the processor has no AT S1E1RP")
        if not self.info.pan:
            refuse(jobs, pan, "the processor has no PAN")
        if not self.info.uao:
            refuse(jobs, jobs["uao"] != 0, "the processor has no UAO")
        if not self.info.atomics:
            refuse(jobs, access == enums["ACCESS_SWAP"], "the processor has no SWP")

    @contextlib.contextmanager
    def parked(self, state: State) -> Iterator[Monitor]:
        """The same.  Where the state has a window the processor is at EL1, so that the monitor
        translates as it does there."""
        with super().parked(state) as monitor:
            end, at_el1 = self._clock.now() + self.deadline, state.window is not None
            while at_el1 and "EL1h" not in monitor.state():  # it is on the way there
                monitor.cont()
                if self._clock.now() > end:
                    raise self._lost("it does not come to EL1")
                monitor.stop()
            yield monitor
