"""The guest whose stub is x86's: the states it can take, and the accesses it can make."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.machine.errors import Misuse
from harness.machine.guest import StubGuest, refuse
from harness.machine.machine import Ability
from harness.machine.ram import HIGH, MIB, Ram, beside
from harness.machine.stub import StubImage
from harness.machine.x86.processor import (
    CR4_CET,
    CR4_LA57,
    FEATURES,
    MachineInfo,
    Mode,
    State,
    changeable,
    check_change,
    check_state,
)
from harness.machine.x86.registry import engine_named
from harness.machine.x86.stub import BUILD

__all__ = ["FEATURES", "Guest", "MachineInfo", "Mode", "State"]


class Guest(StubGuest[State, MachineInfo]):
    """A guest with the stub at its prompt, owning its emulator, memory, monitor and console.

    `engine` is the name of one, `ram_bytes` and `high_bytes` its memory (see `ram`), `cpu` another
    processor than the engine's own, as its emulator names them, `program` another emulator than the
    engine's own, `deadline` the seconds that any answer may take, without those in which the
    emulator waits for a processor.

    Raises as `StubGuest` does, and `Misuse` for memory that the engine cannot have.
    """

    def __init__(
        self,
        engine: str = "tcg",
        *,
        ram_bytes: int = 256 * MIB,
        high_bytes: int = 0,
        cpu: str | None = None,
        program: str | None = None,
        image: StubImage | None = None,
        deadline: float = 30.0,
    ) -> None:
        executes = engine_named(engine)
        image = image or StubImage.load(BUILD)
        if ram_bytes > executes.largest_ram or (high_bytes and not executes.high):
            raise Misuse(
                f"{ram_bytes + high_bytes} bytes of RAM: a guest of {executes.maker} has at most"
                f" {executes.largest_ram}"
            )
        ram = partial(Ram, ram_bytes, high_bytes)
        super().__init__(executes, ram, image, cpu=cpu, program=program, deadline=deadline)

    @property
    def free(self) -> tuple[range, ...]:
        return beside(self.image.arena, self.ram.size)

    def _info_in(self, record: np.void) -> MachineInfo:
        names = self.image.machine_info_dtype.names
        assert names is not None
        leaves = {}
        for name in names:
            eax, ebx, ecx, edx = (int(word) for word in record[name])
            leaf, _, subleaf = name.removeprefix("leaf_").partition("_")
            leaves[int(leaf, 16) | int(subleaf or "0", 16) << 32] = eax, ebx, ecx, edx
        return MachineInfo(leaves)

    def _values(self, state: State) -> dict[str, Any]:
        return {
            "cr3": state.cr3,
            "window": state.window,
            "user_window": state.window if state.user_window is None else state.user_window,
            "entry_cr3": state.entry_cr3,
            "first": state.control,
            "then": (state.then or state).control,
        }

    def _check_state(self, state: State) -> None:
        check_state(state, self.info, self.ram.size, HIGH[: len(self.ram.high)])
        if state.then is not None:
            check_change(state, state.then)
            self._check_state(state.then)

    def _checked_for(self, state: State) -> object:
        return state.mode, (state.cr4 & (state.then or state).cr4) & (CR4_LA57 | CR4_CET)

    def _check_accesses(self, jobs: npt.NDArray[np.void], state: State) -> None:
        enums = self.image.enums
        refuse(jobs, jobs["access"] > enums["ACCESS_CALL"], "no such access")
        refuse(jobs, jobs["flush"] > enums["FLUSH_CR4"], "no such flush")
        refuse(jobs, jobs["control"] > enums["CONTROL_THEN"], "no such control state")
        self._check_invpcid(jobs, state)
        self._check_changes(jobs, state)
        self._check_width(jobs, state)
        self._check_shadow(jobs, state)

    def _check_invpcid(self, jobs: npt.NDArray[np.void], state: State) -> None:
        enums = self.image.enums
        first, last = enums["FLUSH_INVPCID_ADDRESS"], enums["FLUSH_INVPCID_REST"]
        these = (jobs["flush"] >= first) & (jobs["flush"] <= last)
        if these.any() and not self.info.has("invpcid"):
            refuse(jobs, these, "the guest's processor has no INVPCID")
        outside = ~_canonical(jobs["address"], state)
        reason = "INVPCID of an address that is not canonical"
        refuse(jobs, (jobs["flush"] == first) & outside, reason)

    def _check_changes(self, jobs: npt.NDArray[np.void], state: State) -> None:
        """Refuse changes of control registers by which the stub itself would be lost, and those
        that the engine does not survive: it is to refuse them itself."""
        takes = changeable(state, self.info, Ability.REFUSED_LOADS in self.engine.can)
        for name, bits in takes.items():
            these = jobs["flush"] == self.image.enums[f"FLUSH_{name.upper()}"]
            if these.any():
                wrong = these & (jobs["value"] & np.uint64(~bits & (1 << 64) - 1) != 0)
                refuse(jobs, wrong, f"of {name.upper()} no bits but {bits:#x} can be changed here")

    def _check_shadow(self, jobs: npt.NDArray[np.void], state: State) -> None:
        """Refuse shadow-stack accesses by which the stub itself would be lost."""
        shadow = jobs["access"] >= self.image.enums["ACCESS_SHADOW_READ"]
        if not shadow.any():
            return
        states = [state, state.then or state]
        able = all(one.cr4 & CR4_CET for one in states)
        refuse(jobs, shadow & (not able), "a shadow-stack access needs CR4.CET")
        odd = jobs["address"] & np.uint64(state.stack_bytes - 1) != 0
        refuse(jobs, shadow & odd, f"a shadow-stack access is at a multiple of {state.stack_bytes}")
        reason = "a shadow-stack access is at a canonical address"
        refuse(jobs, shadow & ~_canonical(jobs["address"], state), reason)
        for name, enum in (("WRUSS", "ACCESS_USER_SHADOW_WRITE"), ("CALL", "ACCESS_CALL")):
            by_user = (jobs["access"] == self.image.enums[enum]) & (jobs["user"] != 0)
            refuse(jobs, by_user, f"only the supervisor executes {name}")
        if state.mode is not Mode.LONG:
            wruss = jobs["access"] == self.image.enums["ACCESS_USER_SHADOW_WRITE"]
            others = (jobs["user"] == 0) & ~wruss
            others |= jobs["access"] > self.image.enums["ACCESS_USER_SHADOW_WRITE"]
            reason = f"{state.mode.value} has no shadow stack of the supervisor's, and no RET here"
            refuse(jobs, shadow & others, reason)

    def _check_width(self, jobs: npt.NDArray[np.void], state: State) -> None:
        enums, sizes = self.image.enums, (1, 4, 8) if state.mode is Mode.LONG else (1, 4)
        sized = (jobs["access"] == enums["ACCESS_READ"]) | (jobs["access"] == enums["ACCESS_WRITE"])
        odd = np.logical_and.reduce([jobs["size"] != size for size in sizes])
        refuse(jobs, sized & odd, f"{state.mode.value} reads and writes {sizes} bytes")
        if state.mode is not Mode.LONG:
            above = jobs["address"] >> np.uint64(32) != 0
            refuse(jobs, above, f"{state.mode.value} has no address above 4 GiB")


def _canonical(address: npt.NDArray[np.uint64], state: State) -> npt.NDArray[np.bool_]:
    """Which addresses are canonical in long mode; outside, all are."""
    shift = np.int64(56 if state.cr4 & CR4_LA57 else 47)
    sign = np.ascontiguousarray(address).view(np.int64) >> shift
    canonical: npt.NDArray[np.bool_] = (sign == 0) | (sign == -1)
    return canonical | (state.mode is not Mode.LONG)
