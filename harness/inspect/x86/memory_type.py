"""Memory types, as the page attribute table gives them (SDM volume 3A, 12.12).

What the MTRRs say of the frame, which can make the type stricter, is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from harness.inspect.architecture import Types
from harness.inspect.snapshot import QuestionError
from harness.paging.bulk import Bytes
from harness.paging.format import Level
from harness.paging.memory import Words

AT_RESET: Final[Types] = ("WB", "WT", "UC-", "UC") * 2
"""Those after a reset (SDM 12.12.4)."""

DEVICE: Final = ("PWT", "PCD")
UNCACHED: Final = ("UC", "UC-", "WC")
ASSUMED: Final = "IA32_PAT holds what it holds after a reset (--pat)"
"""What is assumed where the register that has the types is not given."""

BITS: Final = ("PWT", "PCD", "PAT")
"""The bits of a leaf that choose one of the types, from the lowest up (SDM table 12-11)."""

_TYPES: Final = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-"}
NAMES: Final = tuple(_TYPES.values())
"""What types are called."""


def types(pat: int | None, _: object = None) -> Types:
    """The eight types of a value of IA32_PAT (SDM table 12-10), of that after a reset for None.

    Raises QuestionError where a byte of it is no type.
    """
    if pat is None:
        return AT_RESET
    codes = pat.to_bytes(len(AT_RESET), "little")
    for number, code in enumerate(codes):
        if code not in _TYPES:
            raise QuestionError(f"IA32_PAT {pat:#x} has {code:#x} as PA{number}, which is no type")
    return tuple(_TYPES[code] for code in codes)


def index_of(bits: Mapping[str, int], raw: int) -> int:
    """Which of the types an entry has; `bits` are the masks of its bits, by their names."""
    return sum(bool(raw & bits.get(name, 0)) << place for place, name in enumerate(BITS))


def selecting(bits: Mapping[str, int], index: int) -> int:
    """The bits of an entry that select one of the types; ValueError where it has none for that."""
    names = [name for place, name in enumerate(BITS) if index >> place & 1]
    if lacking := [name for name in names if name not in bits]:
        raise ValueError(f"the entry has no bit {lacking[0]}")
    return sum(bits[name] for name in names)


def index(level: Level, raw: Words) -> Bytes:
    """The same of each leaf at a level."""
    found = np.zeros(len(raw), np.uint8)
    for place, name in enumerate(BITS):
        if mask := level.bits.get(name, 0):
            found |= ((raw & np.uint64(mask)) != 0).astype(np.uint8) << np.uint8(place)
    return found
