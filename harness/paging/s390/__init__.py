"""s390: formats, the state of a CPU, and what an access comes to (z/Architecture Principles of
Operation, chapter 3, "Dynamic Address Translation").

`formats`  region, segment and page tables, without and with the enhanced-DAT facilities
`cpu`      the ASCE and control register 0; the root
`access`   one access: allowed, or the program interruption, its TEID and the reason
`bulk`     the same for many accesses, as arrays
`linux`    what Linux keeps in entries: pages without rights, pages in swap
"""

from harness.paging.processor import root_for
from harness.paging.s390.access import (
    Access,
    Allowed,
    Code,
    Fault,
    Kind,
    Reason,
    judge,
    outcome,
)
from harness.paging.s390.cpu import AddressSpace, Asce, Cpu, Cr0, Mode

__all__ = [
    "Access",
    "AddressSpace",
    "Allowed",
    "Asce",
    "Code",
    "Cpu",
    "Cr0",
    "Fault",
    "Kind",
    "Mode",
    "Reason",
    "judge",
    "outcome",
    "root_for",
]
