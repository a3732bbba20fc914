"""Memory types, as PBMT of an entry overrides what the platform says of a page (Svpbmt)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from harness.inspect.architecture import Types
from harness.inspect.snapshot import QuestionError
from harness.paging.bulk import Bytes
from harness.paging.format import Level
from harness.paging.memory import Words

AT_RESET: Final[Types] = ("PMA", "NC", "IO")
"""By PBMT; PMA leaves a page the attributes that the platform gives it."""

NAMES: Final = AT_RESET
DEVICE: Final = ("PBMT",)
UNCACHED: Final = ("NC", "IO")
ASSUMED: Final = ""
BITS: Final = ("PBMT",)


def types(register: int | None, _: object = None) -> Types:
    """The three types; QuestionError for a register, for none has them."""
    if register is not None:
        raise QuestionError("RISC-V has no PAT: the types that PBMT selects are fixed (Svpbmt)")
    return AT_RESET


def index_of(bits: Mapping[str, int], raw: int) -> int:
    """PBMT of an entry, 0 where it has none; 3, which is reserved, is no type and taken for 0."""
    mask = bits.get("PBMT", 0)
    return (raw & mask) // (mask & -mask) % len(AT_RESET) if mask else 0


def selecting(bits: Mapping[str, int], index: int) -> int:
    """PBMT with that value; ValueError where an entry has none that could have another than 0."""
    mask = bits.get("PBMT", 0)
    if index and not mask:
        raise ValueError("the hart has no PBMT (Svpbmt)")
    return index * (mask & -mask)


def index(level: Level, raw: Words) -> Bytes:
    """The same of each leaf at a level."""
    mask = level.bits.get("PBMT", 0)
    if not mask:
        return np.zeros(len(raw), np.uint8)
    found = (raw & np.uint64(mask)) // np.uint64(mask & -mask) % np.uint64(len(AT_RESET))
    return found.astype(np.uint8)
