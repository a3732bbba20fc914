"""What an architecture answers about arrays and about addresses is what accesses come to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from harness.architectures import NAMES, has
from harness.inspect import architecture
from harness.inspect.snapshot import QuestionError, Snapshot, SourceError
from harness.inspect.sources.layout import snapshot
from harness.inspect.translation import translate
from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.x86.cpu import Cpu, Mode

LAYOUTS = [
    *("rights", "malformed", "page-sizes", "without-wp", "halves"),
    *("riscv/rights", "riscv/aliases", "riscv/page-sizes"),
    *("arm64/rights", "arm64/malformed", "arm64/hpd", "arm64/page-sizes-16k"),
    *("s390/rights", "s390/malformed", "s390/three-quarters"),
    *("power/rights", "power/malformed", "power/rights-64k"),
]


@cache
def built(name: str) -> Snapshot:
    return snapshot(name, None, {})


@cache
def addresses(name: str) -> list[int]:
    """Of a layout: in pages and beside them, and others with upper bits of every kind."""
    where, source = built(name), random.Random(name)
    asked = architecture.of(where.cpu)
    found = bulk.leaves(where.memory, where.cpu.roots).virtual.tolist()
    chosen = source.sample(found, min(24, len(found)))
    near = [one + source.choice((0, 0xFFF, -1, 1 << 12, 1 << 21)) for one in chosen]
    near += [*chosen, *(one ^ 1 << source.randrange(12, 64) for one in chosen[:12])]
    near += [0, (1 << 63) - 1, (1 << 64) - 1, 1 << 47, 1 << 62]
    return [one for one in near if 0 <= one < 1 << 64 and known(asked, where.cpu, one)]


def known(asked: architecture.Architecture, cpu: Any, address: int) -> bool:
    try:
        asked.check_address(cpu, Virtual(address))
    except QuestionError:
        return False
    return True


def outcomes(name: str, access: Any) -> Iterator[tuple[int, Any]]:
    where = built(name)
    asked = architecture.of(where.cpu)
    for address in addresses(name):
        yield address, asked.outcome(where.cpu, where.memory, Virtual(address), access)


def test_every_architecture_is_there() -> None:
    archs = {built(name).cpu.architecture for name in LAYOUTS}
    assert archs == {one for one in NAMES if has(one, "inspect", "asked")}


@pytest.mark.parametrize("name", LAYOUTS)
def test_many_walks_are_judged_as_each_access_is(name: str) -> None:
    where = built(name)
    cpu, asked = where.cpu, architecture.of(where.cpu)
    walks = bulk.walk(where.memory, cpu.roots, np.array(addresses(name), np.uint64))
    shown = set[bool]()
    for access in asked.accesses(None, None, False):
        passes, unknown, _ = asked.judged(cpu, walks, access)
        for number, (address, outcome) in enumerate(outcomes(name, access)):
            allowed = isinstance(outcome, asked.allowed)
            shown.add(allowed)
            assert bool(passes[number]) == allowed, (hex(address), access, outcome)
            assert bool(unknown[number]) == asked.unknown(outcome), (hex(address), access, outcome)
    assert shown == {True, False}


@pytest.mark.parametrize("name", LAYOUTS)
def test_where_every_access_faults_is_known_by_the_address_and_the_end_of_its_walk(
    name: str,
) -> None:
    where = built(name)
    asked = architecture.of(where.cpu)
    for access in asked.accesses(None, None, False):
        for address, outcome in outcomes(name, access):
            found = translate(where, Virtual(address))
            if found.reason is not None:
                assert outcome.reason is found.reason, (hex(address), access, outcome)
            else:
                assert found.end is End.LEAF or asked.unknown(outcome), (hex(address), access)


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_address_is_translated_where_it_is_said_to_be_one(name: str) -> None:
    where, shown = built(name), set[bool]()
    asked = architecture.of(where.cpu)
    for address in addresses(name):
        pointed = asked.pointed(where.cpu, Virtual(address))
        served, said = asked.canonical(where.cpu, pointed)
        shown.add(served)
        assert said
        rooted = translate(where, Virtual(address)).end is not End.NO_ROOT
        # Of s390 an address may be beyond what TL of the ASCE has of the root's table.
        assert served == rooted or (served and where.cpu.architecture == "s390"), hex(address)
    assert shown == {True, False} or where.cpu.architecture == "s390"


def test_an_architecture_that_is_not_in_this_layer_yet_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(architecture, "NAMES", ("sparc", *NAMES))
    with pytest.raises(SourceError, match="tables of sparc are read by the library, validate"):
        architecture.named("sparc")
    for target, order in ("x86_64", "little"), ("s390x", "big"), ("sparc", "little"):
        assert architecture.byte_order_of(target) == order
    assert architecture.of_target("riscv64", "it") is architecture.named("riscv")
    with pytest.raises(SourceError, match="it is of sparc, whose tables are not known here"):
        architecture.of_target("sparc", "it")
    assert architecture.of_root(["mstatus", "satp"]) == "riscv"
    assert architecture.of_root(["mstatus"]) is None


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("checked", [None, 1 << 63])
def test_pdptes_are_compared_as_tcg_reads_them_and_nothing_else_is_read_anew(
    mode: Mode, checked: int | None
) -> None:
    """From memory, and with the bits reserved that the manual has (SDM 4.4.1): 2:1, 8:5, 63:40."""
    cpu = replace(Cpu.in_mode(mode, 0x1000), maxphyaddr=40)
    if checked is not None and mode is Mode.PAE:
        cpu = replace(cpu, pdptes_checked=checked)
    found = architecture.of(cpu).in_tables(cpu)
    reserved = 0x6 | 0x1E0 | -(1 << 40) & (1 << 64) - 1
    own = mode is Mode.PAE and checked is None
    assert found == (replace(cpu, pdptes_checked=reserved) if own else cpu)


def test_an_access_of_x86_that_there_is_not_is_a_sentence() -> None:
    asked = architecture.named("x86")
    with pytest.raises(QuestionError, match="x86 has no access of the kind jump"):
        asked.accesses("jump", None, False)
    with pytest.raises(QuestionError):
        asked.accesses("fetch", False, True)  # the processor's own are to data
    with pytest.raises(QuestionError):
        asked.accesses("read", True, True)  # and the supervisor's
    assert {(one.kind.name, one.user) for one in asked.accesses(None, None, True)} == {
        ("READ", False),
        ("WRITE", False),
    }
