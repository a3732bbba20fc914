"""arm64: formats, the state of a processor, and what an access comes to: stage 1 of EL1&0 (Arm ARM,
DDI 0487, chapter D8).

`formats`  granules of 4K, 16K and 64K, addresses of 48 and of 52 bits, LPA2
`cpu`      TTBR0_EL1, TTBR1_EL1, TCR_EL1, MAIR_EL1 and SCTLR_EL1; the halves and their roots; tags
`access`   one access: allowed, or ESR_EL1, FAR_EL1 and the reason
`bulk`     the same for many accesses, as arrays
`linux`    what Linux keeps in entries
"""

from harness.paging.arm64.access import (
    Access,
    Allowed,
    Fault,
    Kind,
    Reason,
    Status,
    judge,
    outcome,
)
from harness.paging.arm64.cpu import Cpu, Features, Half

__all__ = [
    "Access",
    "Allowed",
    "Cpu",
    "Fault",
    "Features",
    "Half",
    "Kind",
    "Reason",
    "Status",
    "judge",
    "outcome",
]
