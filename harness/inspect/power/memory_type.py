"""Memory types, as ATT of an entry says them ("Radix Tree Storage Attributes")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from harness.inspect.architecture import Types
from harness.inspect.snapshot import QuestionError
from harness.paging.bulk import Bytes
from harness.paging.format import Level
from harness.paging.memory import Words

AT_RESET: Final[Types] = ("normal", "SAO", "non-idempotent", "tolerant")
"""By ATT: normal memory; strong access order; I/O, non-idempotent, which is guarded, and
tolerant."""

NAMES: Final = AT_RESET
DEVICE: Final = ("ATT",)
UNCACHED: Final = ("non-idempotent", "tolerant")
ASSUMED: Final = ""
BITS: Final = ("ATT",)


def types(register: int | None, _: object = None) -> Types:
    """The four types; QuestionError for a register, for none has them."""
    if register is not None:
        raise QuestionError(
            "POWER has no PAT: the types that ATT says are fixed (Radix Tree Storage Attributes)"
        )
    return AT_RESET


def index_of(bits: Mapping[str, int], raw: int) -> int:
    """ATT of an entry, 0 where it has none."""
    mask = bits.get("ATT", 0)
    return (raw & mask) // (mask & -mask) if mask else 0


def selecting(bits: Mapping[str, int], index: int) -> int:
    """ATT with that value."""
    mask = bits["ATT"]
    return index * (mask & -mask)


def index(level: Level, raw: Words) -> Bytes:
    """The same of each leaf at a level."""
    mask = level.page_bits.get("ATT", 0)
    if not mask:
        return np.zeros(len(raw), np.uint8)
    return ((raw & np.uint64(mask)) // np.uint64(mask & -mask)).astype(np.uint8)
