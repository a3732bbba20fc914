"""The physical memory of a guest, where it is and how it is read fastest.

`info mtree -f` says which addresses have memory.  Where that memory is a file that QEMU maps as
shared, and this process may open it, the file is read: the addresses at which QEMU has it
(`gpa2hva`) and the kernel's list of its mappings tell which part of which file that is.  It is not
mapped here too, since the kernel kills who reads what was cut off a mapped file (SIGBUS).  All else
is read through the monitor, in a few large reads.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from harness.machine.errors import MachineError, Misuse, ProtocolError
from harness.machine.monitor import Monitor
from harness.machine.openfile import OpenFile
from harness.machine.patience import Clock

GAP: Final = 512 << 10
"""Bytes; a read costs as much as that many bytes more of another, so closer ones become one."""

LONGEST: Final = 64 << 20
"""Bytes read at once, so that none comes near a deadline."""

ROM: Final = frozenset({"rom", "romd", "nv-rom"})
"""The kinds of region that keep nothing that a guest stores (QEMU, memory_region_type)."""

MEMORY: Final = ROM | {"ram", "nv-ram"}
"""Those that hold memory, not devices."""


@dataclass(frozen=True)
class Region:
    """Physical addresses with memory behind them, and the place of that in a block of QEMU's.

    `offset` is in bytes; `shared` is the file that holds the same bytes, from `place` in it on, if
    this process can read it; `kind` is QEMU's word for it. Of a device there is no memory.
    """

    span: range
    block: str
    offset: int
    shared: OpenFile | None = None
    place: int = 0
    kind: str = "ram"


def regions(flat_view: str, vcpu: int, *, devices: bool = False) -> tuple[Region, ...]:
    """The memory of a processor, or its devices, in order, as `info mtree -f` prints it.

    Raises `ProtocolError` where it prints something else.
    """
    views = re.split(r"^FlatView #\d+\s*$", flat_view, flags=re.MULTILINE)
    for name in (f"cpu-memory-{vcpu}", "memory"):
        for view in views:
            if f'AS "{name}"' in view:
                return tuple(one for one in _rows(view) if (one.kind in MEMORY) is not devices)
    raise ProtocolError("info mtree -f shows no address space of the processor", flat_view)


def _rows(view: str) -> Iterator[Region]:
    for first, last, kind, block, offset in _ROW.findall(view):
        span = range(int(first, 16), int(last, 16) + 1)
        yield Region(span, block, int(offset or "0", 16), kind=kind)


_ROW: Final = re.compile(
    r"^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ([\w/-]+)\): (.*?)(?: @([0-9a-f]{16}))?"
    r"(?: KVM)?\r?$",
    re.MULTILINE,
)


class Answering(Protocol):
    """A monitor that answers commands for people."""

    def human(self, command: str) -> str: ...


def share(monitor: Answering, pid: int, found: tuple[Region, ...]) -> tuple[Region, ...]:
    """The same regions, with the files of those that QEMU, the process `pid`, shares with others.

    There are none where this process may not see QEMU's mappings or open its files.
    """
    try:
        mappings = list(_mappings(pid))
    except OSError:
        return found
    addresses: dict[str, int | None] = {}
    for region in found:
        if region.block not in addresses:
            address = _host_address(monitor, region.span.start)
            addresses[region.block] = None if address is None else address - region.offset
    files = _Files(pid)
    return tuple(_shared(files, mappings, addresses[region.block], region) for region in found)


@dataclass(frozen=True)
class _Mapping:
    """A part of QEMU's memory that is a file's, from byte `offset` of it on."""

    span: range
    offset: int
    device: int
    inode: int


def _mappings(pid: int) -> Iterator[_Mapping]:
    """The shared mappings of files of a process; raises OSError where they cannot be seen."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, rights, offset, device, inode, *_ = line.split(maxsplit=5)
        if rights.endswith("s") and inode != "0":
            first, last = (int(edge, 16) for edge in addresses.split("-"))
            major, minor = (int(part, 16) for part in device.split(":"))
            yield _Mapping(
                range(first, last), int(offset, 16), os.makedev(major, minor), int(inode)
            )


def _host_address(monitor: Answering, address: int) -> int | None:
    """Where QEMU has the memory at a physical address."""
    match = re.search(r" is (0x[0-9a-f]+)", monitor.human(f"gpa2hva {address:#x}"))
    return int(match[1], 16) if match else None


class _Files:
    """Files that a process has open, opened here for reading, by device and inode."""

    def __init__(self, pid: int) -> None:
        self._paths: dict[tuple[int, int], Path] = {}
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    status = path.stat()
                    self._paths[status.st_dev, status.st_ino] = path

    def of(self, mapping: _Mapping) -> OpenFile | None:
        """The file of a mapping; None where it cannot be read."""
        path = self._paths.get((mapping.device, mapping.inode))
        if path is None:
            return None
        try:
            file = OpenFile(path)
            return file if file.fill(np.empty(1, np.uint8), mapping.offset) else None
        except OSError:
            return None


def _shared(files: _Files, mappings: list[_Mapping], block: int | None, region: Region) -> Region:
    """A region whose block QEMU has at address `block`, with its file if it has one."""
    if block is None:
        return region
    first = block + region.offset
    for mapping in mappings:
        if first in mapping.span and first + len(region.span) <= mapping.span.stop:
            place = mapping.offset + first - mapping.span.start
            return replace(region, shared=files.of(mapping), place=place)
    return region


@dataclass(frozen=True)
class Reader:
    """How memory is read through QEMU: from an address on, so many bytes; `at_once` says whether
    many take as long as few."""

    read: Callable[[int, int], bytes]
    at_once: bool

    @classmethod
    def of(cls, monitor: Monitor, scratch: bool) -> Reader:
        """What QEMU writes to a file of ours, if it can; else what it prints, which is slower."""
        if scratch:
            return cls(monitor.read_physical, True)
        return cls(partial(_printed, monitor), False)


def _printed(monitor: Monitor, address: int, size: int) -> bytes:
    words = _WORDS.findall(monitor.human(f"xp /{size // 8}gx {address:#x}"))
    if len(words) != size // 8:
        raise ProtocolError(f"the monitor did not print {size} bytes at {address:#x}", "")
    return np.array([int(word, 16) for word in words], "<u8").tobytes()


class PhysicalMemory:
    """The memory of a guest in these regions, read in units of `unit` bytes, aligned to that.

    What is in no file is read by `reader`. `patience` is in seconds, by `clock`: that may take as
    long, all together, and then `Misuse` is raised.
    """

    def __init__(
        self,
        reader: Reader,
        clock: Clock,
        found: Sequence[Region],
        unit: int,
        patience: float,
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._unit = unit
        self._patience = self._left = patience
        self._regions = [whole for region in found if (whole := _in_units(region, unit))]
        self._first = np.array([region.span.start for region in self._regions], np.uint64)
        self._last = np.array([region.span.stop - 1 for region in self._regions], np.uint64)

    def read(
        self, addresses: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """The units at sorted addresses, shape (n, unit), and which of them have memory."""
        units = np.zeros((len(addresses), self._unit), np.uint8)
        backed = np.zeros(len(addresses), np.bool_)
        number = np.searchsorted(self._first, addresses, side="right") - 1
        inside = (number >= 0) & (addresses <= self._last[number.clip(min=0)])
        for each in np.unique(number[inside]).tolist():
            region, rows = self._regions[each], np.flatnonzero(inside & (number == each))
            backed[rows] = True
            if region.shared is not None:
                apart = np.flatnonzero(np.diff(addresses[rows]) != self._unit) + 1
                for run in np.split(rows, apart):  # neighbours, since the addresses are sorted
                    place = region.place + int(addresses[run[0]]) - region.span.start
                    _fill(region.shared, units[run[0] : run[-1] + 1], place)
            else:
                self._ask(addresses[rows], rows, units)
        return units, backed

    def _ask(
        self,
        addresses: npt.NDArray[np.uint64],
        rows: npt.NDArray[np.intp],
        units: npt.NDArray[np.uint8],
    ) -> None:
        """Reads units of one region through the monitor, close ones together."""
        for part in self._runs(addresses):
            first = int(addresses[part.start])
            size = int(addresses[part.stop - 1]) + self._unit - first
            read = np.frombuffer(self._bytes(first, size), np.uint8).reshape(-1, self._unit)
            offset = addresses[part] - np.uint64(first)
            units[rows[part]] = read[(offset // np.uint64(self._unit)).astype(np.int64)]

    def _runs(self, addresses: npt.NDArray[np.uint64]) -> Iterator[slice]:
        gap, longest = (GAP, LONGEST) if self._reader.at_once else (0, self._unit)
        first = 0
        for number in range(1, len(addresses) + 1):
            if number < len(addresses):
                near = int(addresses[number] - addresses[number - 1]) - self._unit <= gap
                if near and int(addresses[number] - addresses[first]) < longest:
                    continue
            yield slice(first, number)
            first = number

    def _bytes(self, address: int, size: int) -> bytes:
        if self._left < 0:
            raise Misuse(
                f"its tables take longer than {self._patience:g} s to read through the monitor: if"
                " they are tables, have QEMU share its memory with us (memory-backend-memfd or"
                " -file, share=on)"
            )
        began = self._clock.now()
        octets = self._reader.read(address, size)
        self._left -= self._clock.now() - began
        return octets


def _fill(file: OpenFile, octets: npt.NDArray[np.uint8], place: int) -> None:
    """Reads from a file that QEMU shares; raises `MachineError` where that fails."""
    try:
        done = file.fill(octets, place)
    except OSError as error:
        raise MachineError(f"the guest's memory cannot be read: {error}") from None
    if done < octets.size:
        raise MachineError(
            f"the guest's memory cannot be read: its file was cut short, to {place + done:,} bytes"
        )


def _in_units(region: Region, unit: int) -> Region | None:
    """The whole units of a region, None where it has none."""
    first, past = -(-region.span.start // unit) * unit, region.span.stop // unit * unit
    if past <= first:
        return None
    skipped = first - region.span.start
    return replace(
        region,
        span=range(first, past),
        offset=region.offset + skipped,
        place=region.place + skipped,
    )


_WORDS: Final = re.compile(r"0x([0-9a-f]{16})\b")
