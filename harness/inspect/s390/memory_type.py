"""Memory types, of which s390 has one: no entry selects another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from harness.inspect.architecture import Types
from harness.inspect.snapshot import QuestionError
from harness.paging.bulk import Bytes
from harness.paging.format import Level
from harness.paging.memory import Words

AT_RESET: Final[Types] = ("storage",)
NAMES: Final = AT_RESET
DEVICE: Final[tuple[str, ...]] = ()
UNCACHED: Final[tuple[str, ...]] = ()
ASSUMED: Final = ""
BITS: Final[tuple[str, ...]] = ()


def types(register: int | None, _: object = None) -> Types:
    """The one type; QuestionError for a register, for none has it."""
    if register is not None:
        raise QuestionError("s390 has no PAT: entries select no memory type")
    return AT_RESET


def index_of(_: Mapping[str, int], __: int) -> int:
    """That of every entry."""
    return 0


def selecting(_: Mapping[str, int], index: int) -> int:
    """No bits; ValueError for another type."""
    if index:
        raise ValueError("s390 has one memory type")
    return 0


def index(_: Level, raw: Words) -> Bytes:
    """That of each leaf at a level."""
    return np.zeros(len(raw), np.uint8)
