"""Tables of a guest are read as its engine reads them, and each departure that gives an entry of
them another meaning is named, and no other."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from harness.check import layouts
from harness.check.held import HeldMemory, Octets
from harness.check.x86.layouts import build
from harness.inspect.held import refuse
from harness.inspect.x86.engine import as_marked, as_read
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory, Mask, Words
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from harness.report.schema import schema
from tests.cli.commands import run
from tests.inspect.sources.machines import RAM, STUB, Machine, running
from tests.paging.x86.made import path

QEMU = (7, 2, 22)
LONG = replace(Cpu.in_mode(Mode.LEVEL_4, 0), page1gb=False)
AMD = replace(LONG, amd=True, page1gb=True)
BITS_32 = replace(Cpu.in_mode(Mode.BITS_32, 0, cr4=Cr4.PSE), pse36=False)
ONE_GIB, AMDS, FOUR_MIB = (
    "tcg-1g-page-without-cpuid",
    "tcg-pml4e-bit-8-is-ignored",
    "tcg-4m-page-address-is-never-too-wide",
)


def held(memory: BufferMemory) -> HeldMemory:
    unit = 1 << 12

    def read(units: Words) -> tuple[Octets, Mask]:
        offsets = np.arange(unit // 8, dtype=np.uint64) * np.uint64(8)
        words, backed = memory.gather((units[:, None] + offsets).ravel(), 8)
        there = np.ones(len(units), np.bool_) if backed is None else backed.reshape(-1, 512)[:, 0]
        return words.view(np.uint8).reshape(-1, unit), there

    return HeldMemory(unit, read)


@pytest.mark.parametrize(
    ("cpu", "flags", "name"),
    [
        (LONG, (7, 0x87), ONE_GIB),
        (LONG, (7, 7, 0x87), ""),
        (LONG, (0x107, 7, 7, 7), ""),
        (AMD, (0x107, 7, 7, 7), AMDS),
        (AMD, (7, 0x87), ""),
        (BITS_32, (0x2087,), FOUR_MIB),
        (BITS_32, (0x87,), ""),
    ],
)
def test_a_departure_is_named_where_it_gives_an_entry_another_meaning(
    cpu: Cpu, flags: tuple[int, ...], name: str
) -> None:
    state, memory = path(cpu, *flags)
    read, notes = as_read(state, held(memory), "tcg", QEMU, {})
    assert [name in note for note in notes] == [True] * bool(name)
    assert (read != state) == bool(name)
    assert as_read(state, held(memory), "kvm", (6, 1), {}) == (state, ())


@pytest.mark.parametrize("slot", [1, 511])
def test_every_entry_of_a_table_is_looked_at(slot: int) -> None:
    state, memory = path(LONG, 7, 7, 7, 7)
    memory.store(Physical(0x2000 + 8 * slot), 8, 0x87)
    (note,) = as_read(state, held(memory), "tcg", QEMU, {})[1]
    assert ONE_GIB in note


PDPTES = "tcg-pdptes-are-entries"


@pytest.mark.parametrize(
    ("engine", "named"), [("tcg", True), ("kvm", False)], ids=["tcg", "another engine"]
)
def test_pdptes_that_no_processor_loads_are_read_as_tcg_reads_them(
    engine: str, named: bool
) -> None:
    """TCG looks at the bits beyond MAXPHYADDR alone, so that what bits 2:1 lead to is read."""
    memory = BufferMemory(np.zeros(0x4000, np.uint8))
    for slot, raw in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x1001)):
        memory.store(Physical(slot), 8, raw)
    state = Cpu.in_mode(Mode.PAE, 0x1000)
    refused = state.pdpte.reserved_mask
    state = replace(state, pdptes=(0x2007, 0, 0, 0), pdptes_checked=refused)
    kept = held(memory)
    read, notes = as_read(state, kept, engine, QEMU, {})
    assert [PDPTES in note for note in notes] == ([True] if named else [False])
    assert read.pdptes_checked == ((1 << 64) - (1 << 40) if named else refused)
    if named:
        kept.read = refuse  # all that it leads to was read
        assert kept.load(Physical(0x3000), 8) == 0x1001


@pytest.mark.parametrize(
    ("pdptes", "marked"),
    [((0x1021, 0, 0, 0), True), ((0, 0, 0, 0x1021), True), ((0x1001, 0x20, 0, 0), False)],
)
def test_a_pdpte_that_is_present_and_accessed_is_one_that_tcg_has_read(
    pdptes: tuple[int, ...], marked: bool
) -> None:
    """A processor would refuse it: bit 5 of a PDPTE is reserved (SDM 4.4.1)."""
    state = Cpu.in_mode(Mode.PAE, 0)
    state = replace(state, pdptes=pdptes, pdptes_checked=state.pdpte.reserved_mask)
    read, notes = as_marked(state)
    assert (read != state) == marked
    assert [PDPTES in note for note in notes] == [True] * marked
    for loaded in Cpu.in_mode(Mode.PAE, 0), LONG:
        assert as_marked(loaded) == (loaded, ())


def test_what_is_given_of_the_processor_stays() -> None:
    state, memory = path(LONG, 7, 0x87)
    assert as_read(state, held(memory), "tcg", QEMU, {"page1gb": False}) == (state, ())


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Path]]:
    """A guest on a processor without 1G pages, and the file that is its memory."""
    directory = tmp_path_factory.mktemp("qemu64")
    ram = directory / "ram"
    ram.touch()
    os.truncate(ram, RAM)
    backend = f"memory-backend-file,id=ram,size={RAM},mem-path={ram},share=on"
    shared = ("-object", backend, "-machine", "memory-backend=ram", "-cpu", "max,-pdpe1gb")
    with running(directory, *STUB, *shared) as machine:
        yield machine, ram


@pytest.mark.hw
def test_what_a_change_would_lead_to_on_a_live_guest_is_said_not_to_be_read(
    guest: tuple[Machine, Path], tmp_path: Path
) -> None:
    """Without PS the PDPTE leads to a table in memory that the guest's tables do not lead to."""
    machine, ram = guest
    root, pdpt, target = 0x300_0000, 0x300_1000, 0x310_0000
    with ram.open("r+b") as file, mmap.mmap(file.fileno(), RAM) as mapped:
        mapped[root : root + 0x2000] = bytes(0x2000)
        mapped[root : root + 8] = (pdpt | 7).to_bytes(8, "little")
        mapped[pdpt : pdpt + 8] = (target | 0x87).to_bytes(8, "little")
    asked = ("0x1000", "--access", "read", "--supervisor", "--cr3", hex(root), "--no-page1gb")
    code, out, errors = run("fault", *asked, "--qmp", machine.path, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "rule      the entry has reserved bits set (4.7), at level 2" in out
    assert f"-> 0x{target | 7:016x}" in out
    assert f"clears PS: the entry leads to the table at {target:#x}" in out
    assert f"what lies there was not read: with the level-1 table at {target:#x}" in out
    code, out, _ = run("fault", *asked, "--qmp", machine.path, "--json", cwd=tmp_path)
    told = json.loads(out)
    assert not list(Draft202012Validator(schema("fault")).iter_errors(told))
    (outcome,) = told["outcomes"]
    assert outcome["remedies"][0]["unread"]["table"] == hex(target)
    code, out, errors = run("fault", *asked[:-1], "--qmp", machine.path, cwd=tmp_path)
    assert (code, errors) == (0, "")
    for code_seen in ("1", "9"):
        given = ("--code", code_seen, "--cr2", "0x1000", *asked[4:])
        code, out, errors = run("fault", *given, "--qmp", machine.path, cwd=tmp_path)
        assert (code, errors) == (0, "")


@pytest.mark.hw
@pytest.mark.parametrize("depth", range(4))
def test_a_table_outside_the_memory_of_a_live_guest_gives_the_fault(
    guest: tuple[Machine, Path], tmp_path: Path, depth: int
) -> None:
    """At every level; a depth of 0 is the root itself."""
    machine, ram = guest
    tables = [0x300_0000 + (number << 12) for number in range(4)]
    tables[depth] = OUTSIDE
    with ram.open("r+b") as file, mmap.mmap(file.fileno(), RAM) as mapped:
        for place, target in pairwise(tables[: depth + 1]):
            mapped[place : place + 0x1000] = bytes(0x1000)
            mapped[place : place + 8] = (target | 7).to_bytes(8, "little")
    given = ("--code", "0", "--cr2", "0x1000", "--cr3", hex(tables[0]), "--qmp", machine.path)
    code, out, errors = run("fault", *given, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "The tables as they are give this fault." in out
    assert f"lies outside memory, at {OUTSIDE:#x}, and reads as zeros there: QEMU" in out


OUTSIDE = 0x5000_0000
"""Beyond the memory of the guest."""


@pytest.mark.hw
def test_a_live_guest_its_core_and_its_ram_file_give_one_answer(
    guest: tuple[Machine, Path], tmp_path: Path
) -> None:
    machine, ram = guest
    with ram.open("r+b") as file, mmap.mmap(file.fileno(), RAM) as mapped:
        memory = BufferMemory(np.frombuffer(mapped, np.uint8))
        layout = layouts.load(layouts.find("page-sizes"))
        root = build(layout, 4, memory, 40, page1gb=True).cpu.cr3
        del memory
    core = tmp_path / "core"
    machine.witness.ask("dump-guest-memory", paging=False, protocol=f"file:{core}")
    sources = (("--qmp", machine.path), ("--core", core), ("--ram", ram, "--flat"))

    def answers(command: str, *question: str) -> list[object]:
        asked = (command, *question, "--cr3", hex(root), "--json")
        found = [json.loads(run(*asked, *source, cwd=tmp_path)[1]) for source in sources]
        live, *files = found
        named = any(ONE_GIB in note for note in live["notes"])
        assumed = ["the processor has 1G pages" in " ".join(one["assumed"]) for one in files]
        assert named == all(assumed) == any(assumed) == ("--no-page1gb" not in question)
        (key,) = KEYS.keys() & live.keys()
        return [[{name: one[name] for name in KEYS[key]} for one in each[key]] for each in found]

    address, size = "0xffff800040000000", 1 << 30
    for option, outcome in ([], "allowed"), (["--no-page1gb"], "fault"):
        live, *others = answers("fault", address, "--access", "read", "--supervisor", *option)
        assert others == [live, live]
        assert live[0]["outcome"] == outcome  # type: ignore[index]
        for command in ("walk", address), ("dump",):
            live, *others = answers(*command, *option)
            assert others == [live, live]
            assert any(one["size"] == size for one in live) or option  # type: ignore[attr-defined]


KEYS = {
    "outcomes": ("outcome", "physical", "error", "rule", "because", "sets"),
    "walks": ("end", "physical", "size", "rights", "in_memory"),
    "ranges": ("first", "last", "kind", "size", "pages", "rights", "physical", "highest"),
}
"""Of what commands print, that which does not depend on MAXPHYADDR and the vendor, which a file
does not tell."""
