"""Every page of a space is tried at its edges and beyond them, in every way, on every architecture
but x86, whose cases have a test of their own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, Final

import numpy as np
import pytest

from harness.check.arm64 import cases as arm64
from harness.check.edges import STRAYS
from harness.check.power import cases as power
from harness.check.riscv import cases as riscv
from harness.check.s390 import cases as s390
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.layout import snapshot
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.arm64.access import Kind as Arm64Kind
from harness.paging.bulk import End
from harness.paging.entry import Leaf
from harness.paging.power.access import Kind as PowerKind
from harness.paging.power.cpu import walk_of
from harness.paging.processor import root_for
from harness.paging.riscv.access import Kind as RiscvKind
from harness.paging.s390.access import Kind as S390Kind
from harness.paging.walk import leaves as rows_of
from harness.paging.walk import walk

CODE = 16
"""Where in a page its code is."""

FLAGS = (False, True)
WAYS: Final[dict[str, set[tuple[Any, ...]]]] = {
    # kind, in U-mode, SUM, MXR
    "riscv": set(product(RiscvKind, FLAGS, FLAGS, FLAGS)),
    # kind, at EL0, PAN, UAO: UAO is for LDTR and STTR, which are made at EL1
    "arm64": {
        (kind, el0, pan, uao)
        for kind, el0, pan, uao in product(Arm64Kind, FLAGS, FLAGS, FLAGS)
        if (kind in (Arm64Kind.LDTR, Arm64Kind.STTR) and not el0)
        or (kind.name in ("READ", "WRITE", "FETCH", "AMO") and not uao and not (el0 and pan))
    },
    # kind, in problem state
    "power": set(product(PowerKind, FLAGS)),
    "s390": set(product(S390Kind, FLAGS)),
}  # fmt: skip
"""In which ways data and code are accessed."""

LAYOUTS = [
    *("riscv/rights", "riscv/page-sizes", "arm64/page-sizes-16k", "arm64/malformed"),
    *("power/page-sizes", "power/rights-64k", "s390/malformed", "s390/three-quarters"),
]
OUTSIDE = Span(0x7000_0000, 0x7000_0FFF)


def end_of(where: Snapshot, address: int) -> object:
    """The last entry of the walk of an address, one at a time."""
    root = root_for(where.cpu, address)
    if root is None:
        return None
    if where.cpu.architecture == "power":
        return walk_of(where.cpu, where.memory, root, Virtual(address)).steps[-1].entry
    found = walk(where.memory, root, Virtual(address))
    return None if found.unbacked is not None else found.steps[-1].entry


def cases_of(where: Snapshot, outside: Span) -> Any:
    cpu, memory = where.cpu, where.memory
    leaves = bulk.leaves(memory, cpu.roots)
    if cpu.architecture == "s390":
        return s390.of_space(cpu, memory, leaves)
    of: Callable[..., Any] = {"riscv": riscv, "arm64": arm64, "power": power}[
        cpu.architecture
    ].of_space
    return of(cpu, memory, leaves, outside)


def expected(where: Snapshot, width: int) -> tuple[set[int], set[int]]:
    """The addresses of data, and of code, that a space suggests."""
    data, code, around = set[int](), set[int](), set[int]()
    for row in rows_of(where.memory, where.cpu.roots):
        root = root_for(where.cpu, row.address)
        assert root is not None
        levels = root.table.format.levels
        first, past = row.address, row.address + levels[row.level].size
        around |= {first - width, past}
        if not row.unbacked:
            data |= {first, past - width}
            code |= {first + CODE, past - levels[0].size + CODE}
    for root in where.cpu.roots:
        first, past = root.span.first, root.span.last + 1
        around |= {first, past - width, first - width, past}
    if where.cpu.architecture == "s390":  # where a table of all four quarters ends
        widths = {"segment": 31, "region-third": 42, "region-second": 53, "region-first": 64}
        edge = 1 << widths[where.cpu.mode.value]
        around |= {edge - 8, edge}
    around = {address % (1 << 64) & -8 for address in around}
    beyond = {one for one in around if not isinstance(end_of(where, one), Leaf)}
    if where.cpu.architecture == "power":
        beyond = {one for one in beyond if one >> 62 in (0, 3)}
    return data | beyond, code | beyond


def ways(name: str, cases: Any) -> dict[tuple[Any, ...], set[int]]:
    """The addresses that are accessed, by the way."""
    fields = {"riscv": ("user", "sum", "mxr"), "arm64": ("el0", "pan", "uao")}.get(name, ("user",))
    found: dict[tuple[Any, ...], set[int]] = {}
    columns = [getattr(cases, one).tolist() for one in ("kind", *fields)]
    for address, *way in zip(cases.address.tolist(), *columns, strict=True):
        assert address not in found.setdefault(tuple(way), set()), "once in every way"
        found[tuple(way)].add(address)
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_edge_is_tried_in_every_way_and_a_few_places_besides(name: str) -> None:
    where, arch = snapshot(name, None, {}), name.partition("/")[0]
    data, code = expected(where, 8)
    found = ways(arch, cases_of(where, OUTSIDE))
    assert found.keys() == WAYS[arch]
    for way, addresses in found.items():
        should = code if way[0] == 2 else data
        assert should <= addresses, way
        more = addresses - should
        assert STRAYS // 4 < len(more) <= STRAYS + 2, way
        assert not any(isinstance(end_of(where, one), Leaf) for one in more)


@pytest.mark.parametrize("arch", ["riscv", "arm64"])
def test_places_that_are_named_are_tried_by_their_words_and_the_code_of_their_pages(
    arch: str,
) -> None:
    places = np.array([0x1237, 0x1230, 0x5FFF, 0x7000_0008, 0x3F_FFFF_F008], np.uint64)
    cases: Any
    if arch == "riscv":
        cases = riscv.of_places(snapshot("riscv/rights", None, {}).cpu, places, OUTSIDE)
    else:
        cases = arm64.of_places(places, OUTSIDE)
    found = ways(arch, cases)
    assert found.keys() == WAYS[arch]
    data, code = {0x1230, 0x5FF8, 0x3F_FFFF_F008}, {0x1010, 0x5010, 0x3F_FFFF_F010}
    for way, addresses in found.items():
        assert addresses == (code if way[0] == 2 else data), way


@pytest.mark.parametrize("name", ["riscv/rights", "arm64/malformed", "power/page-sizes"])
def test_nothing_outside_is_tried(name: str) -> None:
    where = snapshot(name, None, {})
    leaves = bulk.leaves(where.memory, where.cpu.roots)
    first = int(leaves.virtual[leaves.end == End.LEAF][0])
    outside = Span.of(first, 1 << 12)
    every, some = (set(cases_of(where, span).address.tolist()) for span in (OUTSIDE, outside))
    assert every - some == {one for one in every if one in outside} != set()


def test_half_of_the_data_of_riscv_is_reached_by_mprv_and_no_code() -> None:
    cases = cases_of(snapshot("riscv/rights", None, {}), OUTSIDE)
    fetch = cases.kind == RiscvKind.FETCH
    assert not cases.mprv[fetch].any()
    by_mprv = set(cases.address[cases.mprv].tolist())
    others = set(cases.address[~fetch & ~cases.mprv].tolist())
    assert by_mprv.isdisjoint(others) and abs(len(by_mprv) - len(others)) <= 1
