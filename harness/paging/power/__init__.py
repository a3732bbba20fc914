"""POWER: formats, the state of a processor, and what an access comes to, by radix trees (Power ISA
3.0, Book III, "Radix Tree Translation"), as POWER9 and POWER10 have them, in one stage.

`formats`  trees of 4K and of 64K pages
`cpu`      what leads to the trees: partition table, process table, quadrants; AMR and IAMR
`access`   one access: allowed, or the interrupt, DSISR or SRR1, and the reason
`bulk`     the same for many accesses, as arrays
`linux`    what Linux keeps in entries besides
"""

from harness.paging.power.access import (
    Access,
    Allowed,
    Fault,
    Interrupt,
    Kind,
    Reason,
    Unbacked,
    judge,
    outcome,
)
from harness.paging.power.cpu import Cpu, load, root_descriptor

__all__ = [
    "Access",
    "Allowed",
    "Cpu",
    "Fault",
    "Interrupt",
    "Kind",
    "Reason",
    "Unbacked",
    "judge",
    "load",
    "outcome",
    "root_descriptor",
]
