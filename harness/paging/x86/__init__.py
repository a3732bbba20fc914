"""x86: formats, CPU state, and what an access comes to (Intel SDM volume 3A, chapter 4).

`formats`  32-bit, PAE, 4-level and 5-level paging
`cpu`      the state of a processor: control registers, features, where walks begin
`access`   what an access comes to
`bulk`     the same of many at once
`load`     what loading a control register comes to
"""

from harness.paging.processor import root_for
from harness.paging.x86.access import (
    Access,
    Allowed,
    Error,
    Fault,
    Kind,
    Reason,
    Unbacked,
    Vector,
    judge,
    outcome,
)
from harness.paging.x86.cpu import Cpu, Cr0, Cr3, Cr4, Efer, Mode

__all__ = [
    "Access",
    "Allowed",
    "Cpu",
    "Cr0",
    "Cr3",
    "Cr4",
    "Efer",
    "Error",
    "Fault",
    "Kind",
    "Mode",
    "Reason",
    "Unbacked",
    "Vector",
    "judge",
    "outcome",
    "root_for",
]
