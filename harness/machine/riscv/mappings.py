"""What QEMU's monitor lists of a hart's tables: `info mem`."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.machine.errors import ProtocolError

ROW: Final = np.dtype([(name, "<u8") for name in ("virtual", "physical", "size", "flags")])
"""Pages that follow each other: the first address, where it leads, the bytes, and the entries' bits
R, W, X, U, G, A and D where these are in an entry."""

_ROW: Final = re.compile(r"([0-9a-f]{1,16}) " * 3 + r"([r-][w-][x-][u-][g-][a-][d-])")
_HEAD: Final = ("vaddr", "----")
_LOWEST: Final = 1
"""The bit of an entry that the first letter stands for: R."""


def mappings_in(text: str) -> npt.NDArray[np.void]:
    """The rows that `info mem` prints, as an array of `ROW`; raises `ProtocolError` for what is
    none."""
    lines = [line for line in text.splitlines() if line and not line.startswith(_HEAD)]
    rows = np.zeros(len(lines), ROW)
    for number, line in enumerate(lines):
        match = _ROW.fullmatch(line.strip())
        if match is None:
            raise ProtocolError(f"the monitor answered info mem with {line[:60]!r}", text)
        *numbers, letters = match.groups()
        flags = sum(1 << _LOWEST + bit for bit, one in enumerate(letters) if one != "-")
        rows[number] = (*(int(digits, 16) for digits in numbers), flags)
    return rows
