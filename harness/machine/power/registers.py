"""The registers of POWER's processors, as QEMU shows them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from harness.machine.packets import Order

LE: Final = 1
"""MSR.LE: whether data is little-endian."""

_NAMES: Final = {"pidr": "pid", "pid": "pid", "amr": "amr", "iamr": "iamr"}
"""Those that the gdb stub alone shows, as it calls them: PIDR is pid in 7.2."""


class Described(Protocol):
    """A monitor that reads the registers which its gdb stub describes."""

    def described_registers(
        self, wanted: Collection[str], /, vcpu: int | None = None, order: Order = "little"
    ) -> dict[str, int]: ...


def registers_in(text: str) -> dict[str, int]:
    """The registers of 64 bits that `info registers` prints, by QEMU's names: among them MSR, LPCR,
    DAR, DSISR, SRR0 and SRR1, and of a hypervisor's processor PTCR (QEMU, target/ppc/cpu_init.c:
    ppc_cpu_dump_state)."""
    return {name: int(digits, 16) for name, digits in _REGISTER.findall(text)}


_REGISTER: Final = re.compile(r"\b([A-Z][A-Z0-9_]*) +([0-9a-f]{16})(?!\S)")


def described(monitor: Described, shown: Mapping[str, int]) -> dict[str, int]:
    """PIDR as pid, AMR and IAMR, of a guest that stands; in the byte order that its MSR says, as
    QEMU sends them (target/ppc/gdbstub.c: ppc_maybe_bswap_register)."""
    order: Order = "little" if shown["MSR"] & LE else "big"
    found = monitor.described_registers(_NAMES, order=order)
    return {_NAMES[name]: value for name, value in found.items()}
