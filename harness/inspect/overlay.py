"""Memory with some words changed, to try a change without making it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.paging.address import Physical
from harness.paging.memory import Mask, Memory, Words


class Overlay:
    """Another memory with `words` in place of its own, by physical address.

    A word may be where the other memory has none.
    """

    def __init__(self, memory: Memory, words: Mapping[int, int]) -> None:
        self._memory = memory
        self._words = words

    def load(self, address: Physical, size: int) -> int | None:
        """The word at `address`."""
        changed = self._words.get(address)
        return self._memory.load(address, size) if changed is None else changed

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many addresses."""
        words, backed = self._memory.gather(addresses, size)
        words = words.copy()
        for address, word in self._words.items():
            here = addresses == np.uint64(address)
            words[here] = word
            backed = None if backed is None else backed | here
        return words, backed
