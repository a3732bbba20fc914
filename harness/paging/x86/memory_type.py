"""Memory types as the page attribute table gives them (SDM volume 3A, 12.12).

What the MTRRs say of the frame is not looked at: it can make the type stricter.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.paging.bulk import Bytes
from harness.paging.format import Level
from harness.paging.memory import Words

RESET_PAT: Final = 0x0007_0406_0007_0406
"""IA32_PAT after power-up (SDM table 12-12)."""

INDEX_BITS: Final = ("PWT", "PCD", "PAT")
"""The bits of a leaf that choose one of the eight types, from the lowest up (SDM table 12-11)."""

_TYPES: Final = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-"}


def types(pat: int) -> tuple[str, ...]:
    """The names of the eight types of a value of IA32_PAT (SDM table 12-10).

    Raises ValueError where a byte of it is no type.
    """
    codes = pat.to_bytes(8, "little")
    for number, code in enumerate(codes):
        if code not in _TYPES:
            raise ValueError(f"IA32_PAT {pat:#x} has {code:#x} as PA{number}, which is no type")
    return tuple(_TYPES[code] for code in codes)


def index(level: Level, raw: Words) -> Bytes:
    """Which of the eight types each leaf at a level has."""
    found = np.zeros(len(raw), np.uint8)
    for place, name in enumerate(INDEX_BITS):
        mask = level.bits.get(name, 0)
        if mask:
            found |= ((raw & np.uint64(mask)) != 0).astype(np.uint8) << np.uint8(place)
    return found
