"""The guest whose stub is s390's: the states it can take, and the accesses it can make."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.machine.guest import StubGuest, refuse
from harness.machine.ram import MIB, Ram
from harness.machine.s390.processor import RAM_BASE, MachineInfo, State, check_state
from harness.machine.s390.qemu import BUILD, TCG
from harness.machine.stub import StubImage

__all__ = ["Guest", "MachineInfo", "State"]


class Guest(StubGuest[State, MachineInfo]):
    """A guest with the stub at its prompt, in supervisor state with translation off.

    ram_bytes  the size of the RAM, which begins at `RAM_BASE`
    cpu        the processor as QEMU names it, such as z14; `max` by default
    program    another QEMU than the usual one
    deadline   the seconds that any answer may take

    Raises as `StubGuest` does.
    """

    def __init__(
        self,
        *,
        ram_bytes: int = 64 * MIB,
        cpu: str | None = None,
        program: str | None = None,
        deadline: float = 30.0,
    ) -> None:
        image = StubImage.load(BUILD)
        ram = partial(Ram, ram_bytes, base=RAM_BASE)
        super().__init__(TCG, ram, image, cpu=cpu, program=program, deadline=deadline)

    @property
    def free(self) -> tuple[range, ...]:
        return (range(self.image.arena.stop, self.ram.base + self.ram.size),)

    def _info_in(self, record: np.void) -> MachineInfo:
        words = [int(word) for word in record["facilities"]]
        return MachineInfo(
            facilities=frozenset(
                64 * place + bit
                for place, word in enumerate(words)
                for bit in range(64)
                if word >> 63 - bit & 1
            ),
            cpu=int(record["cpu"]),
        )

    def _values(self, state: State) -> dict[str, Any]:
        return {"asce": state.asce, "cr0": state.cr0}

    def _check_state(self, state: State) -> None:
        check_state(state, range(self.ram.base, self.ram.base + self.ram.size))

    def _check_accesses(self, jobs: npt.NDArray[np.void], state: State) -> None:
        enums = self.image.enums
        refuse(jobs, jobs["access"] > enums["ACCESS_FETCH"], "no such access")
        refuse(jobs, jobs["flush"] > enums["FLUSH_ALL"], "no such flush")
        fetches = jobs["access"] == enums["ACCESS_FETCH"]
        refuse(jobs, fetches & (jobs["address"] & np.uint64(1) != 0), "code has no odd address")
        by_entry = jobs["flush"] == enums["FLUSH_PAGE"]
        outside = jobs["entry"] >= enums["WORDS"]
        refuse(jobs, by_entry & outside, "IPTE has no such entry")
        used = np.maximum(jobs["patched"], jobs["watched"])
        refuse(jobs, by_entry & (jobs["entry"] >= used), "IPTE is for an entry of where[]")
        frame = jobs["frame"] - np.uint64(self.ram.base)
        refuse(jobs, (jobs["keyed"] != 0) & (frame >= self.ram.size), "the frame is outside RAM")
