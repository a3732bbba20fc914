"""Memory types of many pages, as the page attribute table gives them (SDM volume 3A, 12.12).

What the MTRRs say of the frame, which can make the type stricter, is not looked at.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from harness.inspect.decode import PAT_AT_RESET
from harness.inspect.snapshot import QuestionError
from harness.paging.bulk import Bytes
from harness.paging.format import Level
from harness.paging.memory import Words

Types = tuple[str, ...]
"""The names of the types that the PAT holds, by index."""

BITS: Final = ("PWT", "PCD", "PAT")
"""The bits of a leaf that choose one of the types, from the lowest up (SDM table 12-11)."""

_TYPES: Final = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-"}


def types(pat: int | None) -> Types:
    """The eight types of a value of IA32_PAT (SDM table 12-10), of that after a reset for None.

    Raises QuestionError where a byte of it is no type.
    """
    if pat is None:
        return PAT_AT_RESET
    codes = pat.to_bytes(len(PAT_AT_RESET), "little")
    for number, code in enumerate(codes):
        if code not in _TYPES:
            raise QuestionError(f"IA32_PAT {pat:#x} has {code:#x} as PA{number}, which is no type")
    return tuple(_TYPES[code] for code in codes)


def index(level: Level, raw: Words) -> Bytes:
    """Which of the types each leaf at a level has."""
    found = np.zeros(len(raw), np.uint8)
    for place, name in enumerate(BITS):
        if mask := level.bits.get(name, 0):
            found |= ((raw & np.uint64(mask)) != 0).astype(np.uint8) << np.uint8(place)
    return found
