"""RISC-V: formats, the state of a hart, and what an access comes to (privileged specification 1.13,
"Supervisor-Level ISA").

`formats`  Sv32, Sv39, Sv48 and Sv57, with what Svnapot, Svpbmt and Svrsw60t59b make of them
`cpu`      satp, mstatus, menvcfg and senvcfg; the roots; pointer masking; MPRV
`access`   one access: allowed, or the cause, the address and the reason
`bulk`     the same for many accesses, as arrays
`linux`    what Linux keeps in entries: pages without rights, pages in swap, pages that move
"""

from harness.paging.processor import root_for
from harness.paging.riscv.access import (
    Access,
    Allowed,
    Cause,
    Fault,
    Kind,
    Reason,
    access_from,
    judge,
    outcome,
)
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode, Mstatus, Privilege, Satp

__all__ = [
    "Access",
    "Allowed",
    "Cause",
    "Cpu",
    "Envcfg",
    "Fault",
    "Kind",
    "Mode",
    "Mstatus",
    "Privilege",
    "Reason",
    "Satp",
    "access_from",
    "judge",
    "outcome",
    "root_for",
]
