"""Physical memory as it was when it was first read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from harness.paging.address import Physical
from harness.paging.memory import MARKS, Mask, Memory, Order, Words, distinct

Octets = npt.NDArray[np.uint8]
Read = Callable[[Words], tuple[Octets, Mask]]
"""Reads the units of memory at sorted addresses: their bytes, shape (n, unit), and which exist."""


class HeldMemory:
    """Memory that is read in units, each once; what was read stays as it was.

    unit   bytes: a power of two, and a multiple of the size of an entry
    read   what reads them; another can take its place
    order  of the bytes of words
    """

    def __init__(self, unit: int, read: Read, order: Order = "little"):
        self.read = read
        self._mark = MARKS[order]
        self._unit = unit
        self._address = np.empty(0, np.uint64)
        self._set(self._address, np.empty((0, unit), np.uint8), np.empty(0, np.bool_))

    def hold(self, addresses: Words) -> None:
        """Reads the units in which these addresses lie."""
        units = distinct(addresses & ~np.uint64(self._unit - 1))
        new = units[~self._find(units)[1]]
        if not len(new):
            return
        octets, backed = self.read(new)
        address = np.concatenate([self._address, new])
        order = np.argsort(address, kind="stable")
        self._set(
            address[order],
            np.concatenate([self._octets, octets])[order],
            np.concatenate([self._backed, backed])[order],
        )

    def hold_spans(self, first: Words, last: Words) -> None:
        """Reads the units in which any of the bytes first..last lie of each of some spans."""
        unit = np.uint64(self._unit)
        units = first & ~(unit - np.uint64(1))
        found = []
        while len(units):
            found.append(units)
            going = last - units >= unit
            units, last = units[going] + unit, last[going]
        if found:
            self.hold(np.concatenate(found))

    def load(self, address: Physical, size: int) -> int | None:
        """The word at an address, None where there is no memory."""
        unit = np.uint64(address & -self._unit)
        number = int(self._address.searchsorted(unit))
        if number == len(self._address) or self._address[number] != unit:
            self.hold(np.array([address], np.uint64))
            number = int(self._address.searchsorted(unit))
        if not self._backed[number]:
            return None
        return int(self._words[size][(number * self._unit + address - int(unit)) // size])

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many addresses, and which of them have memory."""
        number, known = self._find(addresses)
        if not known.all():
            self.hold(addresses[~known])
            number, _ = self._find(addresses)
        backed = self._backed[number]
        offset = (addresses & np.uint64(self._unit - 1)).view(np.int64) // size
        words = self._words[size][number * (self._unit // size) + offset].astype(np.uint64)
        return words, None if backed.all() else backed

    def _set(self, address: Words, octets: Octets, backed: Mask) -> None:
        self._address, self._octets, self._backed = address, octets, backed
        flat = octets.ravel()
        self._words = {width: flat.view(f"{self._mark}u{width}") for width in (4, 8)}

    def _find(self, addresses: Words) -> tuple[npt.NDArray[np.int64], Mask]:
        """The number of the unit that each address is in, and whether it was read."""
        unit = addresses & ~np.uint64(self._unit - 1)
        number = np.searchsorted(self._address, unit)
        if not len(self._address):
            return number, np.zeros(len(addresses), np.bool_)
        number[number == len(self._address)] = 0
        return number, self._address[number] == unit


_: type[Memory] = HeldMemory
