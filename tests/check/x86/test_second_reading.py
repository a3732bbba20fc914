"""The second reading says of random accesses what the rules say that the tests have from the
manual, and knows as little as those of how the library reads."""

from __future__ import annotations

import ast
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from harness.check.x86 import second_reading
from harness.check.x86.cases import Cases, reads
from harness.check.x86.second_reading import Asked, Reading, Stop, Walked, at, by_tables
from harness.paging.memory import BufferMemory, Memory, Words
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.bulk import ALLOWED
from harness.paging.x86.cpu import Cpu, Mode
from tests.paging import rules
from tests.paging.machines import cpu_of, random_addresses, random_machine, random_memory
from tests.paging.rules import KINDS, Machine, Translation
from tests.paging.x86 import drawn

SEEDS, LANES = 60, 80

STOPS = {
    "page": Stop.PAGE,
    "not present": Stop.ABSENT,
    "no PDPTE": Stop.ABSENT,
    "reserved": Stop.RESERVED,
    "not canonical": Stop.OUTSIDE,
    "no memory": Stop.UNBACKED,
}


def cases_of(machine: Machine, addresses: list[int], made: list[Access]) -> Cases:
    return Cases(
        np.array(addresses, np.uint64),
        np.array([access.kind for access in made], np.uint8),
        np.array([access.user for access in made]),
        np.full(len(made), machine.ac),
        np.array([access.implicit for access in made]),
    )


def pdptes(source: random.Random, machine: Machine) -> bytes:
    """Four that at times cannot be loaded."""
    found = bytearray()
    for _ in range(4):
        raw = source.randrange(drawn.TABLES) << 12 | source.choice((0, 1, 1, 1, 9, 17, 0xE01))
        if source.random() < 0.05:
            raw |= 1 << source.randrange(1, 64)
        found += raw.to_bytes(8, "little")
    return bytes(found)


def met(
    source: random.Random, machine: Machine, cases: Cases, walks: list[Translation], loaded: bytes
) -> Asked:
    """What the accesses meet; where a walk comes to no entry, some entry that does not matter."""
    words = np.array(
        [[source.getrandbits(64) for _ in walks] for _ in range(max(machine.levels, 2))], np.uint64
    )
    words = words[:2] if machine.levels == 3 else words
    missing = np.zeros(words.shape, np.bool_)
    for lane, walk in enumerate(walks):
        for number, (_, raw) in enumerate(walk.used):
            words[len(words) - 1 - number, lane] = raw
        if walk.end == "no memory":
            assert walk.level is not None
            missing[walk.level, lane] = True
    four = [int.from_bytes(loaded[8 * n : 8 * n + 8], "little") for n in range(4)]
    count = 4 if machine.levels == 3 else 0
    raws = np.repeat(np.array(four[:count], np.uint64)[:, None], len(walks), axis=1)
    numbers = np.repeat(np.arange(count, dtype=np.uint8)[:, None], len(walks), axis=1)
    return Asked(cpu_of(replaced(machine)), cases, words, raws, numbers, missing)


def replaced(machine: Machine) -> Machine:
    """The machine as the library can have it: none of its own PDPTEs is looked at."""
    return Machine(**{**vars(machine), "pdptes": (0, 0, 0, 0)})


def drawn_case(
    source: random.Random, levels: int
) -> tuple[Machine, bytearray, bytes, Machine | None]:
    """A machine, memory, its PDPTEs, and the machine with all loaded; None where that faults."""
    machine = Machine(**{**vars(random_machine(source, levels)), "lam": False})
    memory = bytearray(random_memory(source.getrandbits(32), machine).octets)
    cr3 = source.randrange(drawn.TABLES) << 12
    if levels == 3:
        memory[cr3 : cr3 + 32] = pdptes(source, machine)
    return machine, memory, bytes(memory[cr3 : cr3 + 32]), rules.load_cr3(machine, memory, cr3)


@pytest.mark.parametrize("levels", [2, 3, 4, 5], ids=["32-bit", "pae", "4-level", "5-level"])
def test_the_second_reading_follows_the_rules(levels: int) -> None:
    source, stops = random.Random(levels), set()
    for _ in range(SEEDS):
        machine, memory, four, loaded = drawn_case(source, levels)
        addresses = random_addresses(source.getrandbits(32), machine, LANES)
        made = [drawn.access(source) for _ in range(LANES)]
        cases = cases_of(machine, addresses, made)
        walks = [
            rules.walk(loaded, memory, address) if loaded else Translation("refused", None)
            for address in addresses
        ]
        reading = Reading(met(source, machine, cases, walks, four))
        vector, error = reading.exceptions()
        for lane, (address, access, walk) in enumerate(zip(addresses, made, walks, strict=True)):
            shown = f"{loaded} {address:#x} {access} {walk}"
            stop = STOPS.get(walk.end, Stop.REFUSED)
            stops.add(stop)
            assert reading.walked.stop[lane] == stop, shown
            if stop is Stop.UNBACKED:
                continue
            if loaded is None:
                assert (int(vector[lane]), int(error[lane])) == (13, 0), shown
                continue
            kind = KINDS[int(access.kind)]
            by_rules = rules.access(loaded, memory, address, kind, access.user, access.implicit)
            assert by_rules is not None
            expected = ALLOWED if by_rules.vector is None else by_rules.vector
            assert (int(vector[lane]), int(error[lane])) == (expected, by_rules.error), shown
            assert bool(reading.allowed[lane]) == (by_rules.vector is None), shown
            if walk.level is not None:
                assert reading.walked.level[lane] == walk.level, shown
            if walk.end == "page":
                assert int(reading.physical[lane]) == walk.physical, shown
    outside = {Stop.OUTSIDE} if levels > 3 else {Stop.REFUSED} if levels == 3 else set()
    assert stops == {Stop.PAGE, Stop.ABSENT, Stop.RESERVED, Stop.UNBACKED} | outside


@pytest.mark.parametrize("levels", [2, 3, 4, 5], ids=["32-bit", "pae", "4-level", "5-level"])
def test_it_finds_the_entries_in_memory(levels: int) -> None:
    source = random.Random(levels)
    for _ in range(SEEDS):
        machine, memory, four, loaded = drawn_case(source, levels)
        if loaded is None:
            continue
        addresses = random_addresses(source.getrandbits(32), machine, LANES)
        cases = cases_of(machine, addresses, [Access(Kind.READ, False)] * LANES)
        cpu: Cpu = cpu_of(loaded)
        reading = Reading(at(cpu, BufferMemory(memory), cases))
        for lane, address in enumerate(addresses):
            walk = rules.walk(loaded, memory, address)
            assert reading.walked.stop[lane] == STOPS[walk.end]
            for number, (_, raw) in enumerate(walk.used):
                assert int(reading.asked.words[-1 - number, lane]) == raw
        if levels == 3:
            here = replace(cpu, pdptes=(0,) * 4, pdptes_checked=0)
            own = np.array(addresses, np.uint64) >> np.uint64(30)
            held = np.frombuffer(four, "<u8")[own]
            found = at(here, BufferMemory(memory), cases)
            assert np.array_equal(found.pdpte, held[None])
            assert np.array_equal(found.register, own[None])


class Everywhere:
    """Memory at every address, whose words are tables' entries with each bit of an address."""

    def __init__(self, maxphyaddr: int) -> None:
        self.mask = (1 << maxphyaddr) - 1

    def word(self, address: int, size: int) -> int:
        source = random.Random(address)
        return source.getrandbits(8 * size) & self.mask & ~0xFFF | 0b111

    def gather(self, addresses: Words, size: int) -> tuple[Words, None]:
        return np.array([self.word(at, size) for at in addresses.tolist()], np.uint64), None


@pytest.mark.parametrize("maxphyaddr", [32, 36, 40, 52])
@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_it_finds_entries_at_every_address(
    mode: Mode, maxphyaddr: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, memory = random.Random(maxphyaddr), Everywhere(maxphyaddr)
    monkeypatch.setattr(rules, "entry_at", lambda memory, at, size: memory.word(at, size))
    levels = {Mode.BITS_32: 2, Mode.PAE: 3, Mode.LEVEL_4: 4, Mode.LEVEL_5: 5}[mode]
    for walked in (False, True) if mode is Mode.PAE else (False,):
        for _ in range(8):
            width = 32 if levels < 4 else maxphyaddr
            machine = Machine(levels, maxphyaddr, cr3=source.getrandbits(width) & ~0x1F)
            by_rules: Any = memory
            four = tuple(memory.word(machine.cr3 + 8 * n, 8) & ~6 for n in range(4))
            loaded = replace(machine, pdptes=four if mode is Mode.PAE else (0,) * 4)
            cpu: Cpu = cpu_of(loaded)
            if walked:
                cpu = replace(cpu, pdptes=(0,) * 4, pdptes_checked=0)
            addresses = random_addresses(source.getrandbits(32), machine, 20)
            addresses = [one for one in addresses if rules.is_canonical(machine, one)]
            found = at(cpu, cast("Memory", memory), cases_of(machine, addresses, [READ] * 20))
            for lane, address in enumerate(addresses):
                walk = rules.walk(loaded, by_rules, address)
                assert walk.end == "page"
                entries = [raw for _, raw in walk.used]
                assert found.words[::-1, lane].tolist() == entries, hex(address)
                assert found.missing is not None and not found.missing.any()


READ = Access(Kind.READ, False)

STATES: dict[str, list[int]] = {
    "cr4": [1 << 4, 1 << 5],
    "efer": [1 << 11, 1 << 10],
    "maxphyaddr": [36 ^ 46],
    "page1gb": [True],
    "pse36": [True],
    "amd": [True],
}
"""What is changed of each part of a CPU state on which it depends how walks end."""


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_under_another_state_walks_end_as_by_that_state(mode: Mode) -> None:
    """Whether they are kept from the first or made anew."""
    source = np.random.default_rng(0)
    cpu = replace(Cpu.in_mode(mode, 0, cr4=1 << 4), maxphyaddr=36)
    cases = reads(source.integers(0, 1 << 31, 2000, dtype=np.uint64))
    shape = 2 if not cpu.long else cpu.levels, len(cases)
    words = np.uint64(1) | np.uint64(1) << source.integers(0, 64, shape, dtype=np.uint64)
    words |= np.uint64(1) << source.integers(6, 9, shape, dtype=np.uint64)
    reading = Reading(by_tables(cpu, cases, words))
    first, changed = reading.walked, set[str]()
    for name, flips in STATES.items():
        for flip in flips:
            if (cpu.long and flip == 1 << 5) or (mode is Mode.BITS_32 and flip == 1 << 10):
                continue  # there is no long mode without PAE
            other = replace(cpu, **{name: getattr(cpu, name) ^ flip})
            anew = Reading(replace(reading.asked, cpu=other)).walked
            assert np.array_equal(reading.under(other).walked.stop, anew.stop), name
            assert np.array_equal(reading.under(other).walked.level, anew.level), name
            changed |= {name} if (anew.stop != first.stop).any() else set()
    assert changed >= ({"maxphyaddr"} if cpu.long else {"cr4"})


KNOWN_NAMES = {"Access", "Kind", "ALLOWED", "Outcomes", "Bytes", "Cpu", "Mask", "Memory", "Words"}
"""Of the library, what names types, kinds of accesses and registers, and decides nothing."""


def test_it_uses_nothing_by_which_the_library_decides() -> None:
    tree = ast.parse(Path(second_reading.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness.paging")
        for alias in node.names
    }
    assert imported <= KNOWN_NAMES
    derived = {name for name, value in vars(Cpu).items() if not callable(value)} - set(
        Cpu.__dataclass_fields__
    )
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    ours = {*Asked.__dataclass_fields__, *Walked.__dataclass_fields__}
    assert not used & {name for name in derived - ours if not name.startswith("_")}
