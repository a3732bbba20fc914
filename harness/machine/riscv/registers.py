"""The registers of RISC-V's processors, as QEMU's monitor prints them."""

from __future__ import annotations

import re
from typing import Final


def registers_in(text: str) -> dict[str, int]:
    """The registers that `info registers` prints, by QEMU's names, of x0 to x31 the first: x2 for
    x2/sp.

    Among them pc, V, satp and mstatus; QEMU 11.1 prints menvcfg and senvcfg, too, which 7.2 and
    10.0 do not (QEMU, target/riscv/cpu.c: riscv_cpu_dump_state).
    """
    return {name: int(digits, 16) for name, digits in _REGISTER.findall(text)}


_REGISTER: Final = re.compile(
    r"\b([A-Za-z]\w*)(?:/\w+)? +(?:= +)?([0-9a-f]{16}|[0-9a-f]{8}|[0-3])(?!\S)"
)
