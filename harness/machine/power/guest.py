"""The guest whose stub is POWER's: the states it can take, and the accesses it can make."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.machine.guest import StubGuest, refuse
from harness.machine.power.processor import MachineInfo, State, check_state
from harness.machine.power.qemu import BUILD, SMALLEST_RAM, TCG
from harness.machine.ram import Ram
from harness.machine.stub import StubImage

__all__ = ["Guest", "MachineInfo", "State"]

SIZES: Final = (1, 4, 8)
"""The bytes that an access to data can have."""


class Guest(StubGuest[State, MachineInfo]):
    """A guest with the stub at its prompt, as hypervisor.

    ram_bytes  the size of the RAM, which begins at 0
    cpu        the processor as QEMU names it; that of the machine by default
    program    another QEMU than the usual one
    deadline   the seconds that any answer may take

    Raises as `StubGuest` does.
    """

    def __init__(
        self,
        *,
        ram_bytes: int = SMALLEST_RAM,
        cpu: str | None = None,
        program: str | None = None,
        deadline: float = 30.0,
    ) -> None:
        image = StubImage.load(BUILD)
        ram = partial(Ram, ram_bytes)
        super().__init__(TCG, ram, image, cpu=cpu, program=program, deadline=deadline)

    @property
    def free(self) -> tuple[range, ...]:
        return (range(self.image.arena.stop, self.ram.base + self.ram.size),)

    def _info_in(self, record: np.void) -> MachineInfo:
        return MachineInfo(
            pvr=int(record["pvr"]),
            amr=int(record["amr"]),
            iamr=int(record["iamr"]),
            sets_marks=bool(record["sets_marks"]),
        )

    def _values(self, state: State) -> dict[str, Any]:
        enums = self.image.enums
        return {
            "user": 0 if state.user is None else state.user,
            "kernel": state.kernel,
            "pid": enums["NO_PROCESS" if state.user is None else "PROCESS"],
            "amr": state.amr,
            "iamr": state.iamr,
            "window": enums["NO_WINDOW"] if state.window is None else state.window,
        }

    def _check_state(self, state: State) -> None:
        check_state(state, self.info)

    def _checked_for(self, state: State) -> object:
        return state.window is not None

    def _check_accesses(self, jobs: npt.NDArray[np.void], state: State) -> None:
        enums, access = self.image.enums, jobs["access"]
        refuse(jobs, access > enums["ACCESS_FETCH"], "no such access")
        refuse(jobs, jobs["flush"] > enums["FLUSH_ALL"], "no such flush")
        data = (access == enums["ACCESS_READ"]) | (access == enums["ACCESS_WRITE"])
        refuse(jobs, data & ~np.isin(jobs["size"], SIZES), f"this access has {SIZES} bytes")
        fetches = access == enums["ACCESS_FETCH"]
        refuse(jobs, fetches & (jobs["address"] & np.uint64(3) != 0), "code is a multiple of 4")
        staged = (access != enums["ACCESS_NONE"]) & np.isin(
            jobs["address"] >> np.uint64(62), (1, 2)
        )
        refuse(jobs, staged, "a hypervisor translates quadrants 1 and 2 in two stages")
        if state.window is None:
            made = data & (jobs["user"] != 0)
            refuse(jobs, made, "problem state accesses data from the window, and there is none")
