"""Memory types, as AttrIndx of an entry chooses a byte of MAIR_EL1 ("MAIR_EL1, Memory Attribute
Indirection Register")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from harness.inspect.architecture import Types
from harness.inspect.snapshot import QuestionError
from harness.paging.arm64.cpu import Cpu, is_device
from harness.paging.bulk import Bytes
from harness.paging.format import Level
from harness.paging.memory import Words

_DEVICE: Final = ("nGnRnE", "nGnRE", "nGRE", "GRE")
"""By bits 3:2 of a byte of Device memory."""


DEVICE: Final = ("AttrIndx",)
UNCACHED: Final = (*_DEVICE, "NC")
ASSUMED: Final = ""
BITS: Final = ("AttrIndx",)
_HALVES: Final = ("WB", "WT", "NC")
NAMES: Final[Types] = (
    *_HALVES,
    *_DEVICE,
    *(f"{inner}/{outer}" for inner in _HALVES for outer in _HALVES if inner != outer),
    "WB, tagged",
)
"""Besides bytes of MAIR_EL1 that are reserved."""


def name_of(octet: int) -> str:
    """What a byte of MAIR_EL1 is called: Device memory by its letters; Normal memory WB, WT or NC,
    inner before outer where these differ; the byte itself where it is reserved."""
    if is_device(octet):
        return _DEVICE[octet >> 2] if not octet & 2 else f"{octet:#04x}"
    known = {0x40: "NC", 0xA0: "WT", 0xF0: "WB, tagged"}  # of FEAT_XS and FEAT_MTE2
    if not octet & 15:
        return known.get(octet, f"{octet:#04x}")
    inner, outer = (_normal(half) for half in (octet & 15, octet >> 4))
    return inner if inner == outer else f"{inner}/{outer}"


def described(octet: int) -> str:
    """The same, and where the byte alone says it that the type has XS=0: a DSB with nXS does not
    wait for accesses to it (FEAT_XS)."""
    without = octet in (0x40, 0xA0) or octet & 0xF3 == 1
    return f"{name_of(octet)}, XS=0 (FEAT_XS)" if without else name_of(octet)


def _normal(half: int) -> str:
    """What half a byte says of Normal memory; how long it is kept, and where it is allocated, plays
    no part."""
    if half == 4:
        return "NC"
    return "WB" if half & 4 else "WT"


def types(register: int | None, cpu: Cpu | None) -> Types:
    """The eight types that MAIR_EL1 of a state names; QuestionError for another register."""
    if register is not None:
        raise QuestionError("arm64 has no PAT: the memory types are those of MAIR_EL1 (--mair)")
    if cpu is None:
        return AT_RESET
    return tuple(name_of(cpu.mair >> 8 * index & 0xFF) for index in range(8))


AT_RESET: Final[Types] = tuple(f"Attr{index}" for index in range(8))
"""MAIR_EL1 is not known after a reset."""


def index_of(bits: Mapping[str, int], raw: int) -> int:
    """AttrIndx of an entry, 0 where it has none."""
    mask = bits.get("AttrIndx", 0)
    return (raw & mask) // (mask & -mask) if mask else 0


def selecting(bits: Mapping[str, int], index: int) -> int:
    """AttrIndx with that value."""
    mask = bits["AttrIndx"]
    return index * (mask & -mask)


def index(level: Level, raw: Words) -> Bytes:
    """The same of each leaf at a level."""
    mask = level.bits.get("AttrIndx", 0)
    if not mask:
        return np.zeros(len(raw), np.uint8)
    return ((raw & np.uint64(mask)) // np.uint64(mask & -mask)).astype(np.uint8)
