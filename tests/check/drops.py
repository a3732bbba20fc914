"""Translations about an address that a flush names, and which of them the flush drops."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FLUSHED = 0x4020_1ABC
"""The address that a flush names."""

PAGES = {
    "the first byte of the page": (0x4020_1000, 12, True),
    "the last byte of the page": (0x4020_1FFF, 12, True),
    "the page before": (0x4020_0FFF, 12, False),
    "the page behind": (0x4020_2000, 12, False),
    "another part of the 2M page": (0x403F_F000, 21, True),
    "the 2M page behind": (0x4040_0000, 21, False),
}
"""An address, log2 of the bytes that its page has, and whether a flush of `FLUSHED` drops it."""

Words = npt.NDArray[np.uint64]


def columns(pages: Mapping[str, tuple[int, int, bool]]) -> tuple[Words, Words]:
    """The addresses of pages and log2 of their bytes, shape (len(pages),)."""
    addresses, shifts, _ = zip(*pages.values(), strict=True)
    return np.array(addresses, np.uint64), np.array(shifts, np.uint64)
