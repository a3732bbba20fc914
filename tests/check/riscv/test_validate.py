"""Layouts for RISC-V: built, compared with the machine, and faults of the reference found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.check.layouts import LayoutError, divided, load, parse, shipped
from harness.check.riscv import probes, quirks, validate
from harness.check.riscv.cases import Stated
from harness.check.riscv.layouts import DESCRIBED, build
from harness.check.riscv.quirks import AMO_LOAD, AMO_READS_FIRST, MPRV_CODE
from harness.check.validation import SpaceReport
from harness.machine.errors import Misuse
from harness.machine.riscv.processor import MachineInfo
from harness.machine.riscv.qemu import program_for
from harness.paging import bulk
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory
from harness.paging.riscv.access import Kind
from harness.paging.riscv.bulk import Outcomes, outcomes
from tests.check.tampered import Seen, looked_at, noted, root_entry
from tests.machine.riscv.present import QEMU, why_absent

MODES = DESCRIBED.modes
LAYOUTS = {path.stem: path for path in shipped("riscv")}
CHEAP = ("smallest", "rights", "page-sizes", "self-map")

PAGES = {"smallest": 1, "aliases": 1024 + 4, "dense": 2048, "sparse": 120, "rights": 20}
"""How many pages some layouts have, in Sv39 and what is larger."""


def info(xlen: int) -> MachineInfo:
    """A processor with every mode and no extension."""
    modes = frozenset({"sv32"} if xlen == 32 else set(MODES.values()) - {"sv32"})
    return MachineInfo(xlen, modes, 9, 0, 0, f"rv{xlen}imac")


def validated(name: str, levels: int) -> SpaceReport:
    """What comes of a shipped layout; a skip where there is no machine for it."""
    if reason := why_absent(32 if levels == 2 else 64):
        pytest.skip(reason)
    return validate.validate(load(LAYOUTS[name]), levels, program=QEMU)


def test_without_a_qemu_for_32_bits_sv32_alone_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = validate.validate(load(LAYOUTS["smallest"]), 2)
    assert report.skipped == "there is no qemu-system-riscv32 in PATH"
    assert 0 <= report.seconds < 60
    with pytest.raises(Misuse, match="qemu-system-riscv64"):
        validate.validate(load(LAYOUTS["smallest"]), 3)


@pytest.mark.parametrize(
    ("given", "of_32", "of_64"),
    [
        (None, "qemu-system-riscv32", "qemu-system-riscv64"),
        ("/riscv64/a-riscv64", "/riscv64/a-riscv32", "/riscv64/a-riscv64"),
        ("qemu-system-riscv32", "qemu-system-riscv32", "qemu-system-riscv64"),
        ("./mine", "./mine", "./mine"),
    ],
)
def test_the_qemu_for_other_bits_is_beside_that_which_is_given(
    given: str | None, of_32: str, of_64: str
) -> None:
    assert (program_for(32, given), program_for(64, given)) == (of_32, of_64)


@pytest.mark.parametrize("levels", MODES, ids=MODES.values())
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_built_in_every_mode(name: str, levels: int) -> None:
    layout = load(LAYOUTS[name])
    tables, frames = divided(layout)
    memory = BufferMemory(np.zeros(tables.size, np.uint8), tables.first)
    cpu = build(layout, levels, info(32 if levels == 2 else 64), memory)
    leaves = bulk.leaves(memory, cpu.roots)
    assert len(cpu.format.levels) == levels
    pages = leaves.take(leaves.end == End.LEAF)
    assert (pages.physical >= np.uint64(frames.first)).all()
    if name in PAGES and levels > 2:
        assert len(pages.virtual) == PAGES[name]


@pytest.mark.hw
@pytest.mark.parametrize("levels", MODES, ids=MODES.values())
@pytest.mark.parametrize("name", CHEAP)
def test_the_machine_agrees_and_known_quirks_show(name: str, levels: int) -> None:
    report = validated(name, levels)
    assert report.disagreed == 0, report.disagreements[0]
    assert report.compared > 2000
    assert not report.count("news")
    version = tuple(map(int, report.qemu.split(".")))
    in_code = f"by MPRV to the addresses of the stub's code ({MPRV_CODE.name})"
    departs = version < (10,) and name == "page-sizes"
    assert set(report.count("not_comparable")) == ({in_code} if departs else set())
    shown = report.count("quirks")
    assert set(shown) == ({AMO_LOAD.name} if version < (10,) else set())


@pytest.mark.hw
@pytest.mark.parametrize("name", ["aliases", "sparse"])
def test_the_machine_agrees_on_many_pages(name: str) -> None:
    report = validated(name, 3)
    assert report.disagreed == 0, report.disagreements[0]


@pytest.mark.hw
@pytest.mark.parametrize("levels", MODES, ids=MODES.values())
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_a_denied_amo_that_loads_from_where_no_memory_is_faults_as_is_known(
    levels: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tuple(one for one in quirks.JUDGED if known or one is not AMO_READS_FIRST)
    monkeypatch.setattr(quirks, "JUDGED", others)
    if reason := why_absent(32 if levels == 2 else 64):
        pytest.skip(reason)
    pages = (
        f'[[map]]\nvirtual = {virtual}\nphysical = {physical}\nsize = "4K"\nrights = "{rights}"\n'
        for virtual, physical, rights in (
            ("0x4000_0000", "0x1_0000_0000", "r"),
            ("0x4000_1000", "0x1_0000_1000", "rw"),
            ("0x4000_2000", "0x8400_0000", "r"),
        )
    )
    text = f'title = "no memory"\narch = "riscv"\nlevels = [{levels}]\nram = "128M"\n'
    layout = parse(text + "".join(pages), "nowhere.toml")
    report = validate.validate(layout, levels, program=QEMU)
    assert set(report.count("not_comparable")) == {"the page has no memory behind it"}
    if known:
        assert report.disagreed == 0, report.disagreements[0]
        assert report.count("quirks")[AMO_READS_FIRST.name] == 8
    else:
        assert report.disagreed == 8


def _with(**changes: Callable[[Any], Any]) -> Callable[..., Outcomes]:
    """The reference with some of its arguments changed."""

    def wrong(cpu: Any, memory: Any, address: Any, *flags: Any) -> Outcomes:
        given = dict(zip(("kind", "user", "sum", "mxr"), flags, strict=True))
        given |= {name: change(given[name]) for name, change in changes.items() if name in given}
        cpu = changes.get("cpu", lambda same: same)(cpu)
        return outcomes(cpu, memory, address, *given.values())

    return wrong


def _elsewhere(*asked: Any) -> Outcomes:
    found = outcomes(*asked)
    leaf = found.walks.level == 0
    physical = found.walks.physical ^ np.where(leaf, 0x1000, 0).astype(np.uint64)
    return replace(found, walks=replace(found.walks, physical=physical))


def _beyond(*asked: Any) -> Outcomes:
    found = outcomes(*asked)
    leaf = found.walks.level == 0
    physical = found.walks.physical | np.where(leaf, 1 << 40, 0).astype(np.uint64)
    return replace(found, walks=replace(found.walks, physical=physical))


def _unmarked(*asked: Any) -> Outcomes:
    found = outcomes(*asked)
    return replace(found, sets=found.sets & np.uint64(~0x40 & 0xFF))


def _access_faults(*asked: Any) -> Outcomes:
    found = outcomes(*asked)
    return replace(found, cause=np.where(found.cause == 13, 5, found.cause).astype(np.uint8))


PLANTED: dict[str, Callable[..., Outcomes]] = {
    "MXR plays no part": _with(mxr=np.zeros_like),
    "SUM plays no part": _with(sum=np.zeros_like),
    "SUM and MXR are each other": lambda c, m, a, k, u, s, x: outcomes(c, m, a, k, u, x, s),
    "U-mode and S-mode are each other": _with(user=np.logical_not),
    "an AMO only reads": _with(kind=lambda kind: np.where(kind == 3, 0, kind).astype(np.uint8)),
    "a fetch is a read": _with(kind=lambda kind: np.where(kind == 2, 0, kind).astype(np.uint8)),
    "A and D fault where they are clear": _with(cpu=lambda c: replace(c, svade=True, menvcfg=0)),
    "the neighbouring frame": _elsewhere,
    "a frame that is beyond all memory": _beyond,
    "A is never set": _unmarked,
    "access faults in place of page faults": _access_faults,
}
"""Faults of the reference."""


@pytest.mark.hw
@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_of_the_reference_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "outcomes", PLANTED[fault])
    report = validated("rights", 3)
    assert report.disagreed > 10
    for one in report.disagreements:
        assert isinstance(one.access, Stated)
        assert _RULES_SAY.fullmatch(one.expected), one.expected
        seen = _MACHINE_SAYS.fullmatch(one.observed)
        assert seen, one.observed
        called = {"FETCH": "instruction", "READ": "load"}.get(one.access.kind.name, "store/AMO")
        amo_loads = one.access.kind is Kind.AMO and seen["fault"] in ("load page", "load access")
        if seen["made"] == "not made":
            assert amo_loads or seen["fault"].startswith(f"{called} ")
            assert int(seen["tval"], 16) == one.address
        elif one.access.kind is Kind.FETCH:
            # Code ends in an ECALL, of S-mode or U-mode; where none was put, it is illegal.
            assert seen["cause"] in (("9", "8")[one.access.user], "2")
        else:
            assert seen["cause"] is None


_FAULT = r"(?P<cause>[0-9]+)(?: \((?P<fault>\w+(?:/AMO)? (?:page|access)) fault\))?"
_RULES_SAY = re.compile(
    rf"cause {_FAULT}: .*\(.*\)|reaches 0x[0-9a-f]+(, sets 0x(40|80|c0) in the leaf)?"
)
_MACHINE_SAYS = re.compile(
    rf"(?P<made>(not )?made): (no exception|cause {_FAULT}, tval (?P<tval>0x[0-9a-f]+)),"
    r" data 0x[0-9a-f]+, entries then 0x[0-9a-f]+(, 0x[0-9a-f]+){0,2}"
)


@pytest.mark.hw
def test_tables_that_change_behind_the_harness_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = probes.ask_guest

    def and_writes(guest: Any, state: Any, cpu: Any, memory: BufferMemory, *rest: Any) -> Any:
        found = asked(guest, state, cpu, memory, *rest)
        memory.store(cpu.roots[0].table.slot(5).address, 8, 1 << 8)
        return found

    monkeypatch.setattr(probes, "ask_guest", and_writes)
    report = validated("smallest", 4)
    assert report.disagreed == 1
    assert report.disagreements[0].oracle == "table bytes"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('arch = "riscv"\nlevels = [6]', r"tables of riscv have 2, 3, 4 or 5 levels, not 6"),
        ('arch = "mips"\nlevels = [4]', r"arch is 'mips'"),
        ('arch = "riscv"\nlevels = [3]\n[cpu]\nwp = true', r"no key 'wp'"),
        ("levels = [3]", r"4 or 5 levels, not 3"),
        ('levels = [4]\n[[map]]\nvirtual = 0\nsize = "4K"\nrights = "rw"', r"letters w, u, x"),
    ],
)
def test_what_no_layout_is_is_refused(text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        parse(f'title = "wrong"\n{text}\n', "wrong.toml")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ('size = "4K"\nrights = "w"', "W without R"),
        ('size = "4M"', "pages of Sv39 have 4K, 2M, 1G"),
        ('size = "4K"\nphysical = 0x300_0000', "below 0x83000000 lie"),
    ],
)
def test_pages_that_cannot_be_are_refused(part: str, said: str) -> None:
    text = f'title = "wrong"\narch = "riscv"\nlevels = [3]\n[[map]]\nvirtual = 0\n{part}\n'
    layout = parse(text, "wrong.toml")
    tables, _ = divided(layout)
    memory = BufferMemory(np.zeros(tables.size, np.uint8), tables.first)
    with pytest.raises(LayoutError, match=said):
        build(layout, 3, info(64), memory)
    assert not memory.octets.any()


@pytest.mark.parametrize(("levels", "bits"), [(2, 34), (3, 56), (5, 56)])
def test_pages_lie_anywhere_in_physical_memory_and_not_beyond(levels: int, bits: int) -> None:
    def built(physical: int) -> bool:
        page = f'virtual = 0\nphysical = {physical:#x}\nsize = "4K"\nrights = "r"\n'
        text = f'title = "far"\narch = "riscv"\nlevels = [{levels}]\n[[map]]\n{page}'
        layout = parse(text, "far.toml")
        tables, _ = divided(layout)
        memory = BufferMemory(np.zeros(tables.size, np.uint8), tables.first)
        cpu = build(layout, levels, info(32 if levels == 2 else 64), memory)
        leaves: list[int] = bulk.leaves(memory, cpu.roots).physical.tolist()
        return leaves == [physical]

    assert built((1 << bits) - 0x1000)
    with pytest.raises(LayoutError, match=rf"{bits}"):
        built(1 << bits)


@pytest.mark.hw
def test_every_field_of_a_result_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, lanes = noted(monkeypatch, probes, "_as_expected"), Counter[str]()
    assert not validated("rights", load(LAYOUTS["rights"]).levels[0]).disagreed
    for one in batches:
        _, _, expected, _, _ = one.asked
        allowed, fetch = expected.reached.allowed, expected.reached.fetch
        each, every = allowed | ~allowed, (0, 17, 63)
        seen: Seen = {
            **root_entry(expected),
            "completed": (each, (0,)),
            "cause": (each, (0, 3)),
            "data": (each, (0, 17, 31)),
            "tval": (each, every),
            "epc": (fetch, every),
        }
        lanes.update(looked_at(one, seen))
    assert min(lanes.values()) > 20
