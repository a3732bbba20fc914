"""The entries of one walk of arm64, as a kernel or a debugger prints them, and the processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.inspect.arm64.processor import LINUX_MAIR, SystemRegisters
from harness.inspect.remedy import free_tables, leading
from harness.inspect.snapshot import Given, QuestionError, Snapshot
from harness.inspect.sources.entries import GivenMemory, Pairs, by_level, made_up, placed, unread
from harness.paging.address import Physical, Virtual
from harness.paging.arm64.cpu import Cpu, Half, is_high
from harness.paging.arm64.formats import LARGEST_OUTPUT
from harness.paging.processor import root_for

_USUAL_WIDTH = 48

_TWO_NAMES = "the names that there are no levels for are those of its root's entry"


class Tables(NamedTuple):
    """Which tables entries are of: the granule, the width of addresses, the half, and where the
    root's table is, None where that is not known."""

    granule: str
    width: int
    high: bool
    root: int | None


def cpu_of(tables: Tables) -> Cpu:
    """A processor with that half alone; raises QuestionError where there can be none."""
    wide = tables.width > _USUAL_WIDTH
    try:
        half = Half(tables.granule, tables.width, tables.root or 0)
        return Cpu.of(
            None if tables.high else half,
            half if tables.high else None,
            output_bits=LARGEST_OUTPUT if wide else _USUAL_WIDTH,
            ds=wide and tables.granule != "64K",
            mair=LINUX_MAIR,
        )
    except (ValueError, KeyError) as error:
        raise QuestionError(f"no processor has such tables: {error}") from None


def registers_of(tables: Tables) -> dict[str, int]:
    """TCR_EL1, and the root where it is known."""
    cpu = cpu_of(tables)
    if tables.root is None:
        return {"tcr": cpu.tcr}
    return {"tcr": cpu.tcr, **({"ttbr1": cpu.ttbr1} if tables.high else {"ttbr0": cpu.ttbr0})}


def snapshot(
    title: str,
    pairs: Pairs,
    address: int,
    registers: Mapping[str, int],
    tables: Tables | None = None,
) -> Snapshot:
    """The entries that the walk of an address reads, and a processor with these registers.

    tables  whose they are, where TCR_EL1 is not among the registers

    Raises QuestionError for a name that is no level's, and for entries that contradict each other;
    SourceError for a state that no processor can be in.
    """
    own, high = dict(registers), is_high(address)
    if tables is not None and "tcr" not in registers:
        high = tables.high
        own = {**registers_of(tables), **registers}
    root = "ttbr1" if high else "ttbr0"
    known = root in own
    system = SystemRegisters().with_given({root: 0, **own})
    cpu = system.cpu()
    free, unplaced = _free(cpu, [raw for _, raw in pairs]), set[Physical]()
    if not known:
        unplaced.add(place := next(free))
        cpu = system.with_given({root: place}).cpu()
    given = by_level(cpu, pairs, _TWO_NAMES)
    found = root_for(cpu, Virtual(address))
    words, made = placed(found.table if found else None, given, Virtual(address), 0, free)
    said = [*system.assumed("the list of entries"), *made_up(cpu, given)]
    placement = Given(frozenset(given), frozenset(unplaced | made))
    return Snapshot(
        title,
        cpu,
        GivenMemory(words),
        None,
        tuple(said),
        tuple(unread(cpu, given)),
        given=placement,
        unsure=system.unsure,  # without the root whose entries these are
    )


def _free(cpu: Cpu, raws: Sequence[int]) -> Iterator[Physical]:
    """Addresses for tables that are made up: those to which no entry leads."""
    shape = leading(cpu.format)
    return free_tables(cpu.format, {shape.address_of(raw) for raw in raws})
